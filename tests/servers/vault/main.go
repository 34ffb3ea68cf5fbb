// Command vault is a small Vault server for tests.
//
// It runs Vault's own core and HTTP handler with the engines, auth methods and
// audit device that the suites need. Cloud plugins are left out: they are what
// makes the full server slow to build. It reads the same configuration file as
// the full server (`vault server -config=FILE`: file storage, one TCP listener
// with TLS) and says its version in the same way, so that either program can
// stand in for the other.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	log "github.com/hashicorp/go-hclog"
	authjwt "github.com/hashicorp/vault-plugin-auth-jwt"
	authkube "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	auditfile "github.com/hashicorp/vault/builtin/audit/file"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/credential/userpass"
	"github.com/hashicorp/vault/builtin/logical/database"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/builtin/logical/rabbitmq"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/command/server"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/plugins/database/mysql"
	"github.com/hashicorp/vault/plugins/database/postgresql"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/vault"
	"github.com/hashicorp/vault/version"
)

// How long open requests may take to end once a stop was asked for.
const drain = 3 * time.Second

func main() {
	if len(os.Args) == 2 && os.Args[1] == "version" {
		fmt.Println(version.GetVersion().FullVersionNumber(false))
		return
	}
	if len(os.Args) < 2 || os.Args[1] != "server" {
		fmt.Fprintln(os.Stderr, "usage: vault server -config=FILE")
		os.Exit(2)
	}
	flags := flag.NewFlagSet("vault server", flag.ExitOnError)
	configFile := flags.String("config", "", "configuration file, as of the full server")
	_ = flags.Parse(os.Args[2:])

	if err := run(*configFile); err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
}

// run serves until SIGTERM or SIGINT, then seals the core and returns.
func run(configFile string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	config, err := server.LoadConfigFile(configFile)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	if config.Storage == nil || config.Storage.Type != "file" {
		return errors.New("this server only knows storage of type file")
	}
	if len(config.Listeners) != 1 {
		return errors.New("this server needs exactly one listener")
	}
	listener := config.Listeners[0]

	logger := log.New(&log.LoggerOptions{Name: "vault", Level: log.Info, Output: os.Stderr})
	core, err := newCore(config, logger)
	if err != nil {
		return err
	}

	srv := &http.Server{
		Addr: listener.Address,
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core:           core,
			ListenerConfig: listener,
		}),
		// The cert auth method judges the client's certificate itself.
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert},
		ReadHeaderTimeout: 10 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- srv.ListenAndServeTLS(listener.TLSCertFile, listener.TLSKeyFile) }()

	select {
	case err := <-served:
		return errors.Join(err, core.Shutdown())
	case <-ctx.Done():
	}
	drained, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if srv.Shutdown(drained) != nil {
		// Slow readers do not end by themselves.
		_ = srv.Close()
	}
	return core.Shutdown()
}

func newCore(config *server.Config, logger log.Logger) (*vault.Core, error) {
	storage, err := file.NewFileBackend(config.Storage.Config, logger.Named("storage"))
	if err != nil {
		return nil, fmt.Errorf("open the storage folder: %w", err)
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		RawConfig:       config,
		Physical:        storage,
		RedirectAddr:    config.APIAddr,
		DisableMlock:    config.DisableMlock,
		Logger:          logger,
		BuiltinRegistry: databasePlugins{},
		AuditBackends:   map[string]audit.Factory{"file": auditfile.Factory},
		CredentialBackends: map[string]logical.Factory{
			"approle":    approle.Factory,
			"cert":       cert.Factory,
			"jwt":        authjwt.Factory,
			"kubernetes": authkube.Factory,
			"userpass":   userpass.Factory,
		},
		LogicalBackends: map[string]logical.Factory{
			"database": database.Factory,
			"kv":       kv.Factory,
			"pki":      pki.Factory,
			"rabbitmq": rabbitmq.Factory,
			"transit":  transit.Factory,
		},
	})
	// A core may come with an error that does not stop it from serving.
	if core == nil {
		return nil, fmt.Errorf("start the core: %w", err)
	}
	if err != nil {
		logger.Warn("the core started with a warning", "error", err)
	}
	return core, nil
}

// databasePlugins is the core's list of plugins that are not mounted by
// themselves. Only the database engine looks plugins up this way here.
type databasePlugins struct{}

func (databasePlugins) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	if kind != consts.PluginTypeDatabase {
		return nil, false
	}
	switch name {
	case "postgresql-database-plugin":
		return postgresql.New, true
	case "mysql-database-plugin":
		return mysql.New(mysql.DefaultUserNameTemplate), true
	}
	return nil, false
}

func (p databasePlugins) Contains(name string, kind consts.PluginType) bool {
	_, found := p.Get(name, kind)
	return found
}

func (databasePlugins) Keys(kind consts.PluginType) []string {
	if kind != consts.PluginTypeDatabase {
		return nil
	}
	return []string{"mysql-database-plugin", "postgresql-database-plugin"}
}

func (p databasePlugins) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	if !p.Contains(name, kind) {
		return consts.Unknown, false
	}
	return consts.Supported, true
}
