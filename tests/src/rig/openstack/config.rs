//! The configuration files of Keystone and Barbican. Pure text: addresses and settings in, files out.

use std::path::Path;

use super::Options;
use super::state::Identity;

/// `keystone.conf` for state that lies in `folder`.
pub(super) fn keystone(folder: &Path, url: &str, options: &Options) -> String {
    let folder = folder.display();
    format!(
        "[DEFAULT]\n\
         public_endpoint = {url}\n\
         default_log_levels = keystone=WARN,py.warnings=ERROR\n\
         [database]\n\
         connection = sqlite:///{folder}/keystone.db?timeout=20\n\
         sqlite_synchronous = False\n\
         [identity]\n\
         # The default of 12 costs a second of processor time for each login.\n\
         password_hash_rounds = 4\n\
         [token]\n\
         provider = fernet\n\
         expiration = {token_lifetime}\n\
         # Otherwise a service may still accept a token for two days after its end.\n\
         allow_expired_window = 0\n\
         [fernet_tokens]\n\
         key_repository = {folder}/fernet\n\
         [fernet_receipts]\n\
         key_repository = {folder}/receipts\n\
         [credential]\n\
         key_repository = {folder}/credential\n\
         [cache]\n\
         # Without it one request is two hundred queries. In this process's memory: there is one process.\n\
         enabled = True\n\
         backend = dogpile.cache.memory_pickle\n\
         [security_compliance]\n\
         lockout_failure_attempts = {lockout_after}\n\
         lockout_duration = {lockout_duration}\n\
         [oslo_messaging_notifications]\n\
         driver = noop\n",
        token_lifetime = options.token_lifetime.as_secs(),
        lockout_after = options.lockout_after,
        lockout_duration = options.lockout_duration.as_secs(),
    )
}

/// `barbican.conf` for state that lies in `folder`.
pub(super) fn barbican(folder: &Path, urls: &Urls<'_>, options: &Options, identity: &Identity) -> String {
    let ca = urls.ca.display();
    format!(
        "[DEFAULT]\n\
         host_href = {url}\n\
         db_auto_create = False\n\
         # Keeps it from waiting for a message broker.\n\
         transport_url = fake:/\n\
         max_allowed_secret_in_bytes = 20000\n\
         max_allowed_request_size_in_bytes = 25000\n\
         default_log_levels = barbican=WARN,keystonemiddleware=ERROR,py.warnings=ERROR\n\
         [database]\n\
         connection = sqlite:///{folder}/barbican.db?timeout=20\n\
         sqlite_synchronous = False\n\
         [queue]\n\
         # Orders are carried out within the request that makes them.\n\
         enable = False\n\
         [oslo_policy]\n\
         enforce_scope = True\n\
         enforce_new_defaults = True\n\
         [secretstore]\n\
         enabled_secretstore_plugins = store_crypto\n\
         [crypto]\n\
         enabled_crypto_plugins = simple_crypto\n\
         [simple_crypto_plugin]\n\
         kek = {kek}\n\
         [keystone_authtoken]\n\
         www_authenticate_uri = {keystone}/v3\n\
         auth_url = {keystone}/v3\n\
         cafile = {ca}\n\
         auth_type = password\n\
         username = barbican\n\
         password = {password}\n\
         user_domain_id = default\n\
         project_name = service\n\
         project_domain_id = default\n\
         token_cache_time = {token_cache}\n\
         service_token_roles_required = True\n\
         # Without it every application credential with access rules is answered 401.\n\
         service_type = key-manager\n",
        url = urls.barbican,
        folder = folder.display(),
        keystone = urls.keystone,
        kek = identity.kek,
        password = identity.barbican_password,
        token_cache = options.token_cache.as_secs(),
    )
}

/// Where the servers find each other.
pub(super) struct Urls<'a> {
    /// Of Keystone, without a path.
    pub(super) keystone: &'a str,
    /// Of Barbican, without a path.
    pub(super) barbican: &'a str,
    /// The certificate authority of both, a PEM file.
    pub(super) ca: &'a Path,
}
