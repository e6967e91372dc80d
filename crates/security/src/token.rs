//! The token that proves to sentry who asks.

use std::path::{Path, PathBuf};

use outrider_proto::sentry::v1::sign_certificate_request::TokenValidator;

const PROJECTED: &str = "/var/run/secrets/dapr.io/sentrytoken/token";
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("environmental variable DAPR_SENTRY_TOKEN_FILE is set with an empty value")]
    EmptyVariable,
    #[error("token at path '{0}' is empty")]
    Empty(PathBuf),
    #[error("failed to read token at path '{0}': {1}")]
    Read(PathBuf, std::io::Error),
}

/// Where the token is read, anew for every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// No token; sentry uses its default validator.
    None,
    File {
        path: PathBuf,
        validator: TokenValidator,
    },
    /// The volume that Kubernetes projects for sentry, else the token of the
    /// service account.
    Kubernetes,
}

impl Source {
    /// `token_file` is the value of `DAPR_SENTRY_TOKEN_FILE`, if it is set.
    pub fn choose(kubernetes: bool, token_file: Option<String>) -> Result<Self, Error> {
        match token_file {
            Some(path) if path.is_empty() => Err(Error::EmptyVariable),
            Some(path) => Ok(Self::File {
                path: path.into(),
                validator: if kubernetes {
                    TokenValidator::Kubernetes
                } else {
                    TokenValidator::Jwks
                },
            }),
            None if kubernetes => Ok(Self::Kubernetes),
            None => Ok(Self::None),
        }
    }

    pub(crate) async fn read(&self) -> Result<(String, TokenValidator), Error> {
        match self {
            Self::None => Ok((String::new(), TokenValidator::Unknown)),
            Self::File { path, validator } => Ok((read(path).await?, *validator)),
            Self::Kubernetes => {
                let projected = Path::new(PROJECTED);
                let account = Path::new(SERVICE_ACCOUNT);
                let token = if tokio::fs::try_exists(projected).await.unwrap_or(true) {
                    read(projected).await?
                } else if tokio::fs::try_exists(account).await.unwrap_or(true) {
                    tracing::warn!(target: "dapr.runtime.security", "no token for sentry at {PROJECTED}; using the service account's, which any service of this cluster could replay");
                    read(account).await?
                } else {
                    // Not in a pod: sentry uses its default validator.
                    return Ok((String::new(), TokenValidator::Unknown));
                };
                Ok((token, TokenValidator::Kubernetes))
            }
        }
    }
}

async fn read(path: &Path) -> Result<String, Error> {
    let token = tokio::fs::read_to_string(path)
        .await
        .map_err(|e| Error::Read(path.to_owned(), e))?;
    if token.is_empty() {
        return Err(Error::Empty(path.to_owned()));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_and_may_not_be_empty() {
        assert!(matches!(
            Source::choose(true, Some(String::new())),
            Err(Error::EmptyVariable)
        ));
        let validator_of = |kubernetes| match Source::choose(kubernetes, Some("/t".into())) {
            Ok(Source::File { validator, .. }) => validator,
            other => panic!("{other:?}"),
        };
        assert_eq!(validator_of(true), TokenValidator::Kubernetes);
        assert_eq!(validator_of(false), TokenValidator::Jwks);
        assert_eq!(Source::choose(true, None).unwrap(), Source::Kubernetes);
        assert_eq!(Source::choose(false, None).unwrap(), Source::None);
    }

    #[tokio::test]
    async fn the_file_is_read_at_each_request() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = Source::choose(false, Some(file.path().display().to_string())).unwrap();
        assert!(matches!(source.read().await, Err(Error::Empty(_))));
        std::fs::write(file.path(), "one\n").unwrap();
        assert_eq!(source.read().await.unwrap().0, "one\n");
        std::fs::write(file.path(), "two").unwrap();
        assert_eq!(source.read().await.unwrap().0, "two");
    }
}
