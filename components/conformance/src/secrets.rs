//! The suite for secret stores.

use outrider_components::Pairs;
use outrider_components::secrets::{Feature, GetRequest, Store};

/// Tests a store that has these secrets, and may have others.
pub async fn run(store: &dyn Store, secrets: &[(&str, &[(&str, &str)])]) {
    store.ping().await.expect("ping");
    let all = store.bulk_get(&Pairs::new()).await.expect("bulk get");
    for (name, pairs) in secrets {
        let wanted: Pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        if wanted.len() > 1 {
            let several = store
                .features()
                .contains(&Feature::MultipleKeyValuesPerSecret);
            assert!(
                several,
                "{name} has several keys, which the store does not claim"
            );
        }
        let found = store.get(&GetRequest::new(*name)).await;
        assert_eq!(found.expect("get"), wanted, "{name}");
        assert_eq!(all.get(*name), Some(&wanted), "{name} among all");
    }
    let absent = store.get(&GetRequest::new("no such secret")).await;
    let is_empty = match absent {
        Ok(pairs) => pairs.values().all(String::is_empty),
        Err(_) => true,
    };
    assert!(is_empty, "an absent secret is an error or empty");
    assert!(!all.contains_key("no such secret"));
    store.close().await.expect("close");
}
