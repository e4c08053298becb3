//! The server over a made-up history, asked as browsers and programs ask it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use poq_explorer::{api, pages, serve, Config};
use poq_index::ledger::Facts;
use poq_index::synthetic::{birth, identity, Plan, Synthetic};
use poq_index::{Store, Target};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;
use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

struct Site {
    base: String,
    client: Client,
    store: Store,
    later: Vec<Facts>,
    _folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<tokio::task::JoinHandle<Result<(), poq_index::Error>>>,
}

impl Site {
    /// A server over a history whose last blocks are yet to come.
    async fn new(plan: Plan, change: impl FnOnce(&mut Config)) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::Sqlite(folder.path().join("index"));
        let mut blocks: Vec<Facts> = Synthetic::new(plan).collect();
        let later = blocks.split_off(blocks.len() - 3);
        let mut store = Store::open(&target, &identity()).unwrap();
        store.begin(&birth()).unwrap();
        store.append(&blocks, blocks.last().unwrap().block).unwrap();
        let mut config = Config::new(target);
        config.pulse = Duration::from_millis(50);
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(config, listener, async {
            let _ = stopped.await;
        }));
        let client = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        Site { base, client, store, later, _folder: folder, stop: Some(stop), serving: Some(serving) }
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    /// The next block comes.
    fn grow(&mut self) {
        let facts = self.later.remove(0);
        let tip = facts.block;
        self.store.append(&[facts], tip).unwrap();
    }
}

fn plan() -> Plan {
    Plan { tasks: 130, failing: 200, open: 5, ..Plan::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_of_the_document_has_its_answer() {
    let site = Site::new(plan(), |_| {}).await;
    let holder = Synthetic::account("holder", 1).to_string();
    let pool = site.json("/v1/pools").await[0]["pool"].as_str().unwrap().to_owned();
    let document = site.json("/v1/openapi.json").await;
    assert_eq!(document, serde_json::to_value(api::document()).unwrap());
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 20, "{}", paths.len());
    for (path, item) in paths {
        // Whatever is documented only reads.
        assert_eq!(item.as_object().unwrap().keys().collect::<Vec<_>>(), ["get"], "{path}");
        assert!(item["get"]["summary"].as_str().or(item["get"]["description"].as_str()).is_some(), "{path}");
        if path == "/v1/live" {
            continue;
        }
        let asked = path
            .replace("{task}", "7")
            .replace("{node}", "13")
            .replace("{account}", &holder)
            .replace("{kind}", "1")
            .replace("{pool}", &pool)
            .replace("{block}", "20");
        let asked = if path == "/v1/search" { format!("{asked}?q=qwen") } else { asked };
        let response = site.get(&asked).await;
        assert_eq!(response.status(), StatusCode::OK, "{asked}");
        if path.ends_with(".csv") {
            continue;
        }
        let value: Value = response.json().await.unwrap();
        // What the document says of the answer's fields is what is there.
        let schema = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        fits(&document, schema, &value, &asked);
    }
    // And every answer of this server is documented.
    for undocumented in ["/v1", "/v1/", "/v1/nothing", "/v1/tasks/7/nothing"] {
        let response = site.get(undocumented).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{undocumented}");
        let value: Value = response.json().await.unwrap();
        assert_eq!(value["error"]["code"], "no_such_path");
    }
}

/// Whether a value has the fields that a schema says, no more and no fewer.
fn fits(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        let target = &document["components"]["schemas"][name];
        assert!(target.is_object(), "{place}: {reference} is not in the document");
        return fits(document, target, value, place);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        if value.is_null() {
            return;
        }
        let choice = choices.iter().find(|choice| choice["type"] != "null").unwrap();
        return fits(document, choice, value, place);
    }
    if let Some(properties) = schema["properties"].as_object() {
        let told: BTreeSet<&String> = properties.keys().collect();
        let there: BTreeSet<&String> =
            value.as_object().unwrap_or_else(|| panic!("{place}: {value}")).keys().collect();
        assert_eq!(told, there, "{place}");
        for (name, inner) in properties {
            fits(document, inner, &value[name], &format!("{place} {name}"));
        }
    } else if schema["items"].is_object() {
        for (at, inner) in value.as_array().unwrap_or_else(|| panic!("{place}: {value}")).iter().enumerate() {
            fits(document, &schema["items"], inner, &format!("{place}[{at}]"));
        }
    } else {
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => return,
        };
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        // An object whose fields are not told may be anything.
        assert!(kinds.contains(&kind) || kinds.contains(&"object"), "{place}: {kind} is none of {kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_a_tag_that_changes_with_it() {
    let mut site = Site::new(plan(), |_| {}).await;
    let path = "/v1/tasks?limit=3";
    let first = site.get(path).await;
    let tag = first.headers()["etag"].clone();
    assert_eq!(first.headers()["cache-control"], "no-cache");
    let before: Value = first.json().await.unwrap();
    let again = |tag: reqwest::header::HeaderValue| {
        site.client.get(format!("{}{path}", site.base)).header("if-none-match", tag).send()
    };
    let same = again(tag.clone()).await.unwrap();
    assert_eq!((same.status(), same.headers()["etag"].clone()), (StatusCode::NOT_MODIFIED, tag.clone()));
    assert!(same.bytes().await.unwrap().is_empty());
    // What happens changes the answer, and the tag with it.
    while !site.later.is_empty() {
        site.grow();
    }
    for _ in 0..100 {
        let response = site
            .client
            .get(format!("{}{path}", site.base))
            .header("if-none-match", &tag)
            .send()
            .await
            .unwrap();
        if response.status() == StatusCode::OK {
            assert_ne!(response.headers()["etag"], tag);
            assert_ne!(response.json::<Value>().await.unwrap(), before);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the old answer is still given");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_go_on_without_gaps_and_without_repeating() {
    let site = Site::new(plan(), |_| {}).await;
    let mut seen = Vec::new();
    let mut path = "/v1/tasks?limit=17".to_owned();
    loop {
        let page = site.json(&path).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|task| task["task"].as_u64().unwrap()));
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/tasks?limit=17&before={next}"),
            None => break,
        }
    }
    let all: Vec<u64> = (1..=seen[0]).rev().collect();
    assert_eq!(seen, all);
    // An account's history and its table have the same movements.
    let requester = Synthetic::account("requester", 2).to_string();
    let mut entries = Vec::new();
    let mut before = String::new();
    loop {
        let page = site.json(&format!("/v1/accounts/{requester}/history?limit=13{before}")).await;
        entries.extend(page["items"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert!(entries.len() > 26, "{}", entries.len());
    let places: BTreeSet<String> =
        entries.iter().map(|e| format!("{}-{}-{}", e["block"], e["index"], e["part"])).collect();
    assert_eq!(places.len(), entries.len());
    let response = site.get(&format!("/v1/accounts/{requester}/history.csv")).await;
    assert_eq!(response.headers()["content-type"], "text/csv; charset=utf-8");
    assert!(response.headers()["content-disposition"].to_str().unwrap().contains("attachment"));
    let text = response.text().await.unwrap();
    assert_eq!(text.lines().count(), entries.len() + 1);
    let year = 1_767_225_600_000u64;
    let none =
        site.get(&format!("/v1/accounts/{requester}/history.csv?until={year}")).await.text().await.unwrap();
    assert_eq!(none.lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_says_why() {
    let site = Site::new(Plan { tasks: 10, ..plan() }, |_| {}).await;
    let mut mistyped = Synthetic::account("holder", 1).to_string();
    mistyped.replace_range(12..13, if &mistyped[12..13] == "a" { "b" } else { "a" });
    for (path, status, code, part) in [
        ("/v1/tasks/99999".to_owned(), 404, "absent", "no task 99999"),
        ("/v1/tasks/many".to_owned(), 400, "invalid", "many"),
        ("/v1/nodes/99999".to_owned(), 404, "absent", "no node"),
        ("/v1/nodes/99999/tasks".to_owned(), 404, "absent", "no node"),
        ("/v1/blocks/99999".to_owned(), 404, "absent", "block 99999"),
        ("/v1/kinds/9".to_owned(), 404, "absent", "no kind"),
        ("/v1/tasks?state=late".to_owned(), 400, "invalid", "open, settled or refunded"),
        ("/v1/tasks?limit=x".to_owned(), 400, "invalid", "limit"),
        (format!("/v1/accounts/{mistyped}"), 400, "invalid", "checksum"),
        ("/v1/accounts/nobody".to_owned(), 400, "invalid", "SS58"),
        (format!("/v1/pools/{}", Synthetic::account("holder", 1)), 404, "absent", "no pool"),
        (format!("/v1/search?q={mistyped}"), 400, "invalid", "checksum"),
        (format!("/v1/search?q={}", "x".repeat(300)), 400, "invalid", "200"),
        (
            format!("/v1/accounts/{}/history?before=1-2", Synthetic::account("holder", 1)),
            400,
            "invalid",
            "cursor",
        ),
    ] {
        let response = site.get(&path).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let value: Value = response.json().await.unwrap();
        assert_eq!(value["error"]["code"], code, "{path}");
        let message = value["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{path}: {message}");
    }
    // An address that nobody has used is a valid question.
    let unknown = site.json(&format!("/v1/accounts/{}", Synthetic::account("nobody", 7))).await;
    assert_eq!(
        (&unknown["account"]["known"], &unknown["account"]["fees"]),
        (&Value::Bool(false), &Value::from("0"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_written_and_other_sites_may_read() {
    let site = Site::new(Plan { tasks: 10, ..plan() }, |_| {}).await;
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        for path in ["/v1/tasks", "/v1/status", "/", "/task/1"] {
            let request = site.client.request(method.clone(), format!("{}{path}", site.base));
            assert_eq!(
                request.send().await.unwrap().status(),
                StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}"
            );
        }
    }
    let request =
        site.client.get(format!("{}/v1/status", site.base)).header("origin", "https://elsewhere.example");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert!(!response.headers().contains_key("access-control-allow-credentials"));
    let asked = site
        .client
        .request(Method::OPTIONS, format!("{}/v1/status", site.base))
        .header("origin", "https://elsewhere.example")
        .header("access-control-request-method", "DELETE");
    let allowed = asked.send().await.unwrap();
    assert_eq!(allowed.headers()["access-control-allow-methods"], "GET,HEAD");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_asks_too_much_is_told_to_wait() {
    let site = Site::new(Plan { tasks: 10, ..plan() }, |config| {
        config.per_second = NonZeroU32::MIN;
        config.burst = NonZeroU32::new(5).unwrap();
        config.forwarded = true;
    })
    .await;
    let ask = |from: &'static str| {
        site.client.get(format!("{}/v1/kinds", site.base)).header("x-forwarded-for", from).send()
    };
    for _ in 0..5 {
        assert_eq!(ask("192.0.2.1").await.unwrap().status(), StatusCode::OK);
    }
    let refused = ask("192.0.2.1").await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    let value: Value = refused.json().await.unwrap();
    assert_eq!(value["error"]["code"], "too_many_requests");
    // Somebody else is not kept out, and what one writes before the proxy's own word does not count.
    assert_eq!(ask("192.0.2.2").await.unwrap().status(), StatusCode::OK);
    assert_eq!(ask("203.0.113.9, 192.0.2.1").await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    // The pages themselves are no questions.
    for _ in 0..20 {
        assert_eq!(site.get("/").await.status(), StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_listens_is_told_what_is_new() {
    let mut site = Site::new(plan(), |_| {}).await;
    let mut response = site.get("/v1/live").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let first = response.chunk().await.unwrap().unwrap();
    assert!(std::str::from_utf8(&first).unwrap().contains("retry"));
    site.grow();
    let mut text = String::new();
    while !text.contains("\n\n") || !text.contains("event: news") {
        let chunk =
            tokio::time::timeout(Duration::from_secs(5), response.chunk()).await.unwrap().unwrap().unwrap();
        text += std::str::from_utf8(&chunk).unwrap();
    }
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let news: Value = serde_json::from_str(data).unwrap();
    assert!(!news["tasks"].as_array().unwrap().is_empty());
    let tip = site.store.tip().unwrap().number;
    assert_eq!(news["status"]["tip"]["number"], tip);
    assert!(text.contains(&format!("id: {tip}")));
    // Who is told to stop does not wait for those who listen.
    drop(site.stop.take());
    let served = tokio::time::timeout(Duration::from_secs(5), site.serving.take().unwrap()).await;
    served.expect("the server stops").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_this_programs_own_and_nobody_elses() {
    let site = Site::new(Plan { tasks: 10, hostile: true, ..plan() }, |_| {}).await;
    let index = site.get("/").await;
    let policy = index.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("connect-src 'self'"));
    assert_eq!(index.headers()["x-content-type-options"], "nosniff");
    assert_eq!(index.headers()["referrer-policy"], "no-referrer");
    let tag = index.headers()["etag"].clone();
    let html = index.text().await.unwrap();
    for page in ["/task/7", "/account", "/pools", "/nothing/at/all"] {
        let response = site.get(page).await;
        assert_eq!(response.status(), StatusCode::OK, "{page}");
        assert_eq!(response.text().await.unwrap(), html, "{page}");
    }
    let known = site.client.get(&site.base).header("if-none-match", tag).send().await.unwrap();
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    for missing in ["/js/none.js", "/task/7.json", "/../Cargo.toml"] {
        assert_ne!(site.get(missing).await.text().await.unwrap().find("[package]"), Some(0), "{missing}");
    }
    assert_eq!(site.get("/js/none.js").await.status(), StatusCode::NOT_FOUND);
    // Every file is served as what it is, asks nobody else, and makes nothing of text but text.
    fn walk(folder: &include_dir::Dir<'_>, each: &mut impl FnMut(&include_dir::File<'_>)) {
        folder.files().for_each(&mut *each);
        folder.dirs().for_each(|inner| walk(inner, each));
    }
    let mut scripts = 0;
    let mut files = Vec::new();
    walk(&pages::FILES, &mut |file| {
        let text = file.contents_utf8().expect("pages are text").to_owned();
        files.push((file.path().to_str().unwrap().to_owned(), text));
    });
    for (path, text) in &files {
        let response = site.get(&format!("/{path}")).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let elsewhere = text.replace("http://www.w3.org/", "");
        assert!(
            !elsewhere.contains("http://") && !elsewhere.contains("https://"),
            "{path} names another place"
        );
        if path.ends_with(".js") {
            scripts += 1;
            for never in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "DOMParser",
            ] {
                assert!(!text.contains(never), "{path} has {never}");
            }
        }
    }
    assert!(scripts >= 15, "{scripts}");
    // Every text that is there is used, and none is missing, is the pages' own test (scripts/check-pages.sh).
    let english = files.iter().find(|(path, _)| path == "messages/en.json").unwrap();
    let words: serde_json::Map<String, Value> = serde_json::from_str(&english.1).unwrap();
    assert!(words.len() > 300 && words.values().all(Value::is_string));
}
