//! Hears that the API server is there, also where it has nothing to report: a quiet watch gets bookmarks, which the
//! watcher keeps to itself, and is taken up anew now and then.

use std::sync::Arc;

use http::Request;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use tower::service_fn;

use super::watch_health::WatchState;

/// A client that notes each answer, and each piece of one that goes on, as a sign of life of this watch.
pub(super) fn listening(client: Client, state: &Arc<WatchState>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let state = Arc::clone(state);
    let service = service_fn(move |request: Request<Body>| {
        let (client, state) = (client.clone(), Arc::clone(&state));
        async move {
            let response = client.send(request).await?;
            if response.status().is_success() {
                state.heard();
            }
            let heard = response.map(|body| {
                body.map_frame(move |frame| {
                    state.heard();
                    frame
                })
            });
            Ok::<_, kube::Error>(heard)
        }
    });
    Client::new(service, namespace)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use bytes::Bytes;
    use futures::stream;
    use http::Response;
    use tokio::time::sleep;

    use super::super::watch_health::WatchHealth;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whatever_comes_is_a_sign_of_life() {
        let service = service_fn(|_: Request<Body>| async {
            let bookmarks = stream::unfold((), |()| async {
                sleep(Duration::from_mins(1)).await;
                Some((Ok::<_, Infallible>(Bytes::from_static(b"bookmark")), ()))
            });
            Ok::<_, Infallible>(Response::new(axum::body::Body::from_stream(bookmarks)))
        });
        let health = WatchHealth::default();
        let client = listening(Client::new(service, "default"), &health.register("Secret"));
        let silent = || health.snapshot()[0].silent_for.as_secs();
        sleep(Duration::from_mins(5)).await;
        assert_eq!(silent(), 300);
        let request = Request::get("/api/v1/secrets?watch=1")
            .body(Body::empty())
            .unwrap();
        let mut body = client.send(request).await.unwrap().into_body();
        assert_eq!(silent(), 0, "it is answered");
        for _ in 0..2 {
            body.frame().await.unwrap().unwrap();
            assert_eq!(silent(), 0);
        }
        sleep(Duration::from_secs(30)).await;
        assert_eq!(silent(), 30);
    }
}
