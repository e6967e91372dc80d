//! Keeps the values of secrets out of messages about components.

use std::borrow::Cow;

use outrider_crds::property::NameValue;

/// Shorter values, in bytes, are parts of words rather than secrets.
const SHORTEST: usize = 4;
const MASK: &str = "***";

/// The text without what `values`, one for each of the items, have from
/// secrets, plain or quoted. Parts of a secret, and what a program has encoded
/// in another way, are not found.
pub fn without_secrets(mut text: String, items: &[NameValue], values: &[String]) -> String {
    let pairs = items.iter().zip(values);
    let secrets = pairs.filter(|(item, _)| !item.secret_key_ref.is_unset());
    let mut secrets: Vec<&str> = secrets.map(|(_, value)| value.trim()).collect();
    secrets.retain(|secret| secret.len() >= SHORTEST);
    // One may be part of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    for secret in secrets {
        for form in forms(secret) {
            if text.contains(&*form) {
                text = text.replace(&*form, MASK);
            }
        }
    }
    text
}

/// A secret as messages may show it.
fn forms(secret: &str) -> Vec<Cow<'_, str>> {
    let quoted = [
        outrider_kit::quote::go(secret),
        format!("{secret:?}"),
        serde_json::Value::from(secret).to_string(),
    ];
    let mut forms = vec![Cow::Borrowed(secret)];
    for quoted in quoted {
        let bare = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"'));
        let bare = bare.filter(|bare| *bare != secret);
        forms.extend(bare.map(|bare| Cow::Owned(bare.to_owned())));
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_from_secrets_are_masked_and_others_are_not() {
        let item = |secret: &str| {
            let mut item = NameValue::default();
            item.secret_key_ref.name = secret.to_owned();
            item
        };
        let items = [item(""), item("long"), item("longer"), item("short")];
        let values = ["host.example", "hunter", "hunter2", "db"].map(str::to_owned);
        let text = "user hunter2 (hunter) at host.example: no db".to_owned();
        assert_eq!(
            without_secrets(text, &items, &values),
            "user *** (***) at host.example: no db"
        );
        let secret = "s\"ecr\\et".to_owned();
        let quoted = outrider_kit::quote::go(&secret);
        for text in [format!("{secret:?}"), format!("got {secret}"), quoted] {
            let masked = without_secrets(text, &[item("odd")], std::slice::from_ref(&secret));
            assert!(!masked.contains("ecr"), "{masked}");
        }
    }
}
