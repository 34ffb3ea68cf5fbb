//! One function per auth method: what is sent, and what a login gives.

use std::time::Duration;

use http::StatusCode;
use keyward_core::secret::SecretBytes;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::auth::oidc::requests::JWTLoginRequest;
use vaultrs::api::auth::userpass::requests::LoginRequest as UserpassLogin;
use vaultrs::api::token::requests::RenewTokenSelfRequest;
use zeroize::Zeroize;

use super::classify::{TokenWord, login_refused, not_understood, refused, rejected, token_word};
use super::config::VaultAuth;
use super::endpoints::{LogInWithCertificate, LoginEnvelope, LookUpSelf, TokenInfo};
use super::wire::{Caller, Prepared, Wire, data_of, decode};
use crate::stores::Outcome;
use crate::stores::transport::Response;

/// What a login or a renewal gives.
pub(super) struct Grant {
    pub(super) token: SecretBytes,
    /// How long it lives from now; `None` is for ever.
    pub(super) ttl: Option<Duration>,
    pub(super) renewable: bool,
    /// Whether the token may be asked about itself, as far as is known.
    pub(super) tells_of_itself: bool,
}

/// Logs in by whatever method `auth` names.
pub(super) async fn log_in(wire: &Wire, auth: &VaultAuth, caller: Caller<'_>) -> Outcome<Grant> {
    let prepared = match auth {
        VaultAuth::Kubernetes { mount, role, jwt } => kubernetes(mount, role, &jwt.mint().await?)?,
        VaultAuth::AppRole {
            mount,
            role_id,
            secret_id,
        } => app_role(mount, role_id, secret_id)?,
        VaultAuth::Token(token) => return adopt(wire, caller, token).await,
        VaultAuth::Jwt { mount, role, jwt } => signed_jwt(mount, role.as_deref(), &jwt.mint().await?)?,
        VaultAuth::Userpass {
            mount,
            username,
            password,
        } => userpass(mount, username, password)?,
        VaultAuth::Cert { mount, role } => certificate(mount, role.as_deref())?,
    };
    let answer = wire.send(prepared, caller).await?;
    if answer.status != StatusCode::OK {
        return Err(login_refused(&answer, auth.method()));
    }
    granted(&answer, auth.method())
}

/// Makes the token that `caller` holds live longer.
pub(super) async fn renew(wire: &Wire, caller: Caller<'_>) -> Outcome<Grant> {
    let answer = wire
        .call(&RenewTokenSelfRequest { increment: None }, caller)
        .await?;
    if answer.status != StatusCode::OK {
        return Err(refused(&answer, "renewing the token"));
    }
    granted(&answer, "token")
}

fn kubernetes(mount: &str, role: &str, jwt: &SecretBytes) -> Outcome<Prepared> {
    let mut request = LoginWithKubernetesRequest {
        mount: mount.to_owned(),
        role: role.to_owned(),
        jwt: text(jwt, "kubernetes")?,
    };
    let prepared = Prepared::new(&request);
    request.jwt.zeroize();
    prepared
}

fn app_role(mount: &str, role_id: &str, secret_id: &SecretBytes) -> Outcome<Prepared> {
    let mut request = LoginWithApproleRequest {
        mount: mount.to_owned(),
        role_id: role_id.to_owned(),
        secret_id: text(secret_id, "appRole")?,
    };
    let prepared = Prepared::new(&request);
    request.secret_id.zeroize();
    prepared
}

fn signed_jwt(mount: &str, role: Option<&str>, jwt: &SecretBytes) -> Outcome<Prepared> {
    let mut request = JWTLoginRequest {
        mount: mount.to_owned(),
        role: role.map(str::to_owned),
        jwt: text(jwt, "jwt")?,
    };
    let prepared = Prepared::new(&request);
    request.jwt.zeroize();
    prepared
}

fn userpass(mount: &str, username: &str, password: &SecretBytes) -> Outcome<Prepared> {
    let mut request = UserpassLogin {
        mount: mount.to_owned(),
        username: username.to_owned(),
        password: text(password, "userpass")?,
    };
    let prepared = Prepared::new(&request);
    request.password.zeroize();
    prepared
}

fn certificate(mount: &str, role: Option<&str>) -> Outcome<Prepared> {
    Prepared::new(&LogInWithCertificate {
        mount: mount.to_owned(),
        name: role.map(str::to_owned),
    })
}

/// A token made elsewhere is looked up once: how long it lives decides when to renew it. One that may not be looked up is
/// taken as it is, and the first read shows whether it serves.
async fn adopt(wire: &Wire, caller: Caller<'_>, token: &SecretBytes) -> Outcome<Grant> {
    let token = SecretBytes::from(text(token, "token")?);
    let caller = Caller {
        token: Some(&token),
        ..caller
    };
    let answer = wire.call(&LookUpSelf {}, caller).await?;
    let (ttl, renewable, tells_of_itself) = if answer.status == StatusCode::OK {
        let info: TokenInfo = data_of(&answer, "the look-up of the token")?;
        (lifetime(info.ttl), info.renewable, true)
    } else if answer.status == StatusCode::FORBIDDEN && token_word(&answer) == TokenWord::Policy {
        (None, false, false)
    } else {
        return Err(login_refused(&answer, "token"));
    };
    Ok(Grant {
        token,
        ttl,
        renewable,
        tells_of_itself,
    })
}

fn granted(answer: &Response, method: &str) -> Outcome<Grant> {
    let what = format!("the {method} login");
    let envelope: LoginEnvelope = decode(answer, &what)?;
    let login = envelope.auth.ok_or_else(|| not_understood(&what))?;
    let Some(token) = login.client_token.filter(|token| !token.is_empty()) else {
        return Err(match login.mfa_requirement {
            Some(_) => rejected(format!("{what} wants a second factor"))
                .advise("let Keyward log in by a role or a user that needs none"),
            None => not_understood(&what),
        });
    };
    Ok(Grant {
        token: SecretBytes::from(token),
        ttl: lifetime(login.lease_duration.unwrap_or_default()),
        renewable: login.renewable.unwrap_or_default(),
        tells_of_itself: true,
    })
}

fn lifetime(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Files and hand-made Secrets often end with a line break that is no part of the credential.
fn text(credential: &SecretBytes, method: &str) -> Outcome<String> {
    let text = credential
        .expose_str()
        .map(|text| text.trim_end_matches(['\n', '\r']).to_owned());
    text.ok_or_else(|| rejected(format!("the {method} credential is not text")))
}
