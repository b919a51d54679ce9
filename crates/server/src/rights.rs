//! Who may do what: the one place that every command and every HTTP request passes. Today there is one password and one user; users and
//! rights by key and category find all they need here.

use crate::settings::ServerSettings;
use kvorum_model::{Args, CommandSpec, ErrorReply, Flags};

/// Checks a command of the Redis protocol with its keys. `authenticated`: the connection has given the password, or none was needed when it
/// was opened.
pub(crate) fn check(
    authenticated: bool,
    settings: &ServerSettings,
    spec: &CommandSpec,
    _args: Args<'_>,
) -> Result<(), ErrorReply> {
    if authenticated || settings.requirepass.is_none() || spec.flags.has(Flags::NO_AUTH) {
        return Ok(());
    }
    Err(ErrorReply::new("NOAUTH Authentication required."))
}

/// The only user there is.
const USER: &[u8] = b"default";

/// Whether these are the credentials of the one user.
pub(crate) fn credentials_fit(settings: &ServerSettings, user: &[u8], password: &[u8]) -> bool {
    let known = settings.requirepass.as_deref().is_none_or(|secret| same(secret.as_bytes(), password));
    user == USER && known
}

/// Whether an HTTP request's `Authorization` gives the password, as `Basic` (any or no user name besides `default` is refused) or `Bearer`.
pub(crate) fn authorization_fits(settings: &ServerSettings, header: Option<&[u8]>) -> bool {
    use base64::Engine as _;
    let Some(secret) = settings.requirepass.as_deref() else { return true };
    let Some((scheme, rest)) = header.and_then(|text| text.split_at_checked(6)) else { return false };
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return same(secret.as_bytes(), rest.trim_ascii());
    }
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return false;
    }
    let Ok(pair) = base64::engine::general_purpose::STANDARD.decode(rest.trim_ascii()) else { return false };
    let Some(colon) = memchr::memchr(b':', &pair) else { return false };
    let (user, password) = pair.split_at(colon);
    let password = password.get(1..).unwrap_or_default();
    (user.is_empty() || user == USER) && same(secret.as_bytes(), password)
}

/// Compares without telling by its time where the difference is.
fn same(secret: &[u8], given: &[u8]) -> bool {
    let differences = secret.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(differences) == 0 && secret.len() == given.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded() -> ServerSettings {
        ServerSettings { requirepass: Some("secret".into()), ..ServerSettings::default() }
    }

    #[test]
    fn http_takes_basic_and_bearer() {
        let fits = |header: &str| authorization_fits(&guarded(), Some(header.as_bytes()));
        assert!(fits("Bearer secret") && fits("bearer secret"));
        assert!(fits("Basic ZGVmYXVsdDpzZWNyZXQ="), "default:secret");
        assert!(fits("Basic OnNlY3JldA=="), ":secret");
        for wrong in
            ["Bearer secre", "Bearer secrets", "Basic !!", "Basic", "Digest secret", "Basic YWRtaW46c2VjcmV0"]
        {
            assert!(!fits(wrong), "{wrong}");
        }
        assert!(!authorization_fits(&guarded(), None));
        assert!(authorization_fits(&ServerSettings::default(), None));
    }

    #[test]
    fn only_the_default_user_exists() {
        assert!(credentials_fit(&guarded(), b"default", b"secret"));
        assert!(!credentials_fit(&guarded(), b"root", b"secret"));
        assert!(!credentials_fit(&guarded(), b"default", b""));
        assert!(credentials_fit(&ServerSettings::default(), b"default", b"anything"));
    }
}
