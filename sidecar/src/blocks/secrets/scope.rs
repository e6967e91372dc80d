//! Which secrets the application may read.
//! <https://docs.dapr.io/developing-applications/building-blocks/secrets/secrets-scopes/>

use std::collections::{HashMap, HashSet};

use outrider_crds::configuration::Secrets;

#[derive(Debug, Default, Clone)]
pub struct Scope {
    deny_by_default: bool,
    allowed: HashSet<String>,
    denied: HashSet<String>,
}

/// What a Configuration says about scopes that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    #[error("a storeName is repeated in secrets configuration")]
    Repeated,
    #[error("defaultAccess {0} can be either allow or deny")]
    DefaultAccess(String),
}

/// The scopes by store.
pub fn parse(spec: Option<&Secrets>) -> Result<HashMap<String, Scope>, Invalid> {
    let mut scopes = HashMap::new();
    for scope in spec.into_iter().flat_map(|s| &s.scopes) {
        let deny_by_default = match scope.default_access.to_ascii_lowercase().as_str() {
            "" | "allow" => false,
            "deny" => true,
            _ => return Err(Invalid::DefaultAccess(scope.default_access.clone())),
        };
        let parsed = Scope {
            deny_by_default,
            allowed: scope.allowed_secrets.iter().cloned().collect(),
            denied: scope.denied_secrets.iter().cloned().collect(),
        };
        if scopes.insert(scope.store_name.clone(), parsed).is_some() {
            return Err(Invalid::Repeated);
        }
    }
    Ok(scopes)
}

impl Scope {
    /// A list of allowed secrets decides alone; else the list of denied ones;
    /// else the default.
    pub fn allows(&self, secret: &str) -> bool {
        if !self.allowed.is_empty() {
            return self.allowed.contains(secret);
        }
        !self.denied.contains(secret) && !self.deny_by_default
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_crds::configuration::SecretScope;

    #[test]
    fn rules() {
        let scope = |default: &str, allowed: &[&str], denied: &[&str]| {
            let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
            let spec = SecretScope {
                store_name: "s".into(),
                default_access: default.into(),
                allowed_secrets: texts(allowed),
                denied_secrets: texts(denied),
            };
            parse(Some(&Secrets { scopes: vec![spec] })).map(|mut all| all.remove("s").unwrap())
        };
        assert!(scope("", &[], &["a"]).unwrap().allows("b"));
        assert!(!scope("", &[], &["a"]).unwrap().allows("a"));
        assert!(!scope("Deny", &[], &[]).unwrap().allows("a"));
        let listed = scope("allow", &["a"], &["a"]).unwrap();
        assert!(listed.allows("a") && !listed.allows("b"));
        assert_eq!(
            scope("foo", &[], &[]).unwrap_err().to_string(),
            "defaultAccess foo can be either allow or deny"
        );
    }
}
