#!/usr/bin/env bash
# Builds the image, makes a kind cluster where there is none, and installs the chart in it.
#
# Not verified by the test suite, which runs without a container engine. Needs docker, kind, kubectl and helm.
set -euo pipefail
cd "$(dirname "$0")/.."

cluster=keyward

docker build --file operator/Dockerfile --tag keyward:latest .
# Named by what is in it, so that a second run replaces the pods of the first.
tag=$(docker image inspect --format '{{.Id}}' keyward:latest)
tag=${tag#sha256:}
tag=${tag:0:12}
docker tag keyward:latest "keyward:$tag"
if ! kind get clusters | grep --quiet --line-regexp "$cluster"; then
  kind create cluster --config kind-config/cluster.yaml
fi
kind load docker-image "keyward:$tag" --name "$cluster"

# Helm installs the definitions once and never changes them; applying them here keeps them current.
kubectl --context "kind-$cluster" apply --server-side --filename crds/manifests/
helm upgrade keyward charts/keyward --install --kube-context "kind-$cluster" \
  --namespace keyward-system --create-namespace \
  --set image.repository=keyward --set-string "image.tag=$tag" --set image.pullPolicy=Never \
  --wait --timeout 3m

kubectl --context "kind-$cluster" --namespace keyward-system get pods
