//! Stores whose items can be searched.

use std::collections::BTreeMap;

use outrider_components::Kind;
use outrider_components::state::{DeleteRequest, Matches, Query, SetRequest, Store};

use super::{etag, expiring, json};
use crate::unique;

pub async fn run(store: &dyn Store) {
    let search = Search {
        store,
        prefix: unique("query"),
    };
    let rows = [
        (r#"{"run": "RUN", "name": "Ann", "age": 9, "at": {"city": "Rome"}}"#),
        (r#"{"run": "RUN", "name": "bob", "age": 30, "at": {"city": "Oslo"}, "left": true}"#),
        (r#"{"run": "RUN", "name": "Cid", "age": 200.5, "at": {"city": "Rome"}, "left": null}"#),
        (r#"{"run": "RUN", "name": "it's", "age": "30"}"#),
    ];
    for (n, row) in rows.iter().enumerate() {
        let row = row.replace("RUN", &search.prefix);
        let request = SetRequest::new(format!("{}-{n}", search.prefix), json(&row));
        store.set(&request).await.expect("set");
    }
    search.conditions().await;
    search.order_and_pages().await;
    search.expired().await;
    for n in 0..rows.len() {
        let request = DeleteRequest::new(format!("{}-{n}", search.prefix));
        store.delete(&request).await.expect("delete");
    }
}

struct Search<'a> {
    store: &'a dyn Store,
    prefix: String,
}

impl Search<'_> {
    async fn ask(&self, document: &str) -> Matches {
        let query = Query::parse(document.as_bytes()).expect("is a query");
        self.store.query(&query).await.expect(document)
    }

    /// The numbers of the rows of this run for which `filter` holds.
    async fn find(&self, filter: &str) -> Vec<String> {
        let prefix = &self.prefix;
        let document =
            format!(r#"{{"filter": {{"AND": [{{"EQ": {{"run": "{prefix}"}}}}, {filter}]}}}}"#);
        let found = self.ask(&document).await;
        let mut numbers: Vec<String> = found
            .items
            .iter()
            .map(|item| self.number(&item.key))
            .collect();
        numbers.sort();
        numbers
    }

    fn number(&self, key: &str) -> String {
        let number = key.strip_prefix(&format!("{}-", self.prefix));
        number.expect("a key of this run").to_owned()
    }

    async fn conditions(&self) {
        for (filter, wanted) in [
            (r#"{"EQ": {"at.city": "Rome"}}"#, "0 2"),
            (r#"{"NEQ": {"at.city": "Rome"}}"#, "1"),
            (r#"{"EQ": {"age": 9}}"#, "0"),
            (r#"{"EQ": {"age": 200.50}}"#, "2"),
            (r#"{"EQ": {"left": true}}"#, "1"),
            (r#"{"EQ": {"name": "it's"}}"#, "3"),
            (r#"{"EQ": {"it's.not": 1}}"#, ""),
            // By value, not by text.
            (r#"{"GT": {"age": 9}}"#, "1 2"),
            (r#"{"GTE": {"age": 9}}"#, "0 1 2"),
            (r#"{"LT": {"age": 30}}"#, "0"),
            (r#"{"LTE": {"age": 30}}"#, "0 1"),
            (r#"{"IN": {"name": ["Ann", "Cid", "nobody"]}}"#, "0 2"),
            (
                r#"{"OR": [{"EQ": {"name": "bob"}}, {"AND": [{"GT": {"age": 100}}, {"EQ": {"at.city": "Rome"}}]}]}"#,
                "1 2",
            ),
        ] {
            assert_eq!(self.find(filter).await.join(" "), wanted, "{filter}");
        }
        let strings = Query::parse(br#"{"filter": {"GT": {"name": "A"}}}"#).expect("is a query");
        let error = self.store.query(&strings).await.expect_err("is no number");
        assert_eq!(error.kind(), Kind::Invalid);
    }

    async fn order_and_pages(&self) {
        let prefix = &self.prefix;
        let document = |order: &str, page: &str| {
            format!(
                r#"{{"filter": {{"AND": [{{"EQ": {{"run": "{prefix}"}}}}, {{"LTE": {{"age": 1000}}}}]}},
                "sort": [{{"key": "age"{order}}}]{page}}}"#
            )
        };
        let numbers = |found: &Matches| {
            let numbers: Vec<_> = found
                .items
                .iter()
                .map(|item| self.number(&item.key))
                .collect();
            numbers.join(" ")
        };
        let found = self.ask(&document("", "")).await;
        assert_eq!((numbers(&found), &*found.token), ("0 1 2".to_owned(), ""));
        let wanted = etag(self.store, &found.items[0].key).await;
        assert_eq!(found.items[0].etag.as_deref(), Some(&*wanted));
        let value: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&found.items[0].value).expect("is JSON");
        assert_eq!(value["name"], "Ann");

        let descending = r#", "order": "DESC""#;
        let page = r#", "page": {"limit": 2}"#;
        let found = self.ask(&document(descending, page)).await;
        assert_eq!(numbers(&found), "2 1");
        let page = format!(r#", "page": {{"limit": 2, "token": "{}"}}"#, found.token);
        let found = self.ask(&document(descending, &page)).await;
        assert_eq!(numbers(&found), "0");
    }

    async fn expired(&self) {
        let key = unique("expired");
        let mut request = expiring(&key, "1");
        request.value = json(&format!(r#"{{"only": "{key}"}}"#));
        self.store.set(&request).await.expect("set");
        let document = format!(r#"{{"filter": {{"EQ": {{"only": "{key}"}}}}}}"#);
        assert_eq!(self.ask(&document).await.items.len(), 1);
        crate::eventually("it expires", std::time::Duration::from_secs(5), || async {
            self.ask(&document).await.items.is_empty()
        })
        .await;
    }
}
