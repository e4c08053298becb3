#![allow(clippy::unwrap_used)]

use super::{testing::serve, *};
use crate::{ChatRole, FinishReason, GenerateRequest, Message, Prompt, Sink};
use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{mpsc, Arc},
};

const KEY: &str = "sesame-open";

fn served(model: &str) -> Served {
    Served { model: model.into(), revision: None }
}

fn endpoint(api: Api, url: Url) -> Endpoint {
    let url = Address::try_from(url).unwrap();
    Endpoint { key: Some(KEY.into()), ..Endpoint::new("ours", api, url, served("theirs")) }
}

fn generator(url: Url) -> EndpointGenerator {
    let endpoint = endpoint(Api::OpenAi, url);
    let client = endpoint.client().unwrap();
    EndpointGenerator::new(endpoint, client, 4096)
}

fn chat() -> GenerateRequest {
    GenerateRequest::new(Prompt::Chat(vec![
        Message::new(ChatRole::System, "Be brief."),
        Message::new(ChatRole::User, "Hi?"),
    ]))
}

const STREAM: &str = "200 OK\r\ncontent-type: text/event-stream";

fn events(events: &[&str]) -> (&'static str, String) {
    (STREAM, events.iter().map(|event| format!("data: {event}\n\n")).collect())
}

fn delta(text: &str) -> String {
    format!(
        r#"{{"choices":[{{"index":0,"delta":{{"content":{}}},"finish_reason":null}}]}}"#,
        serde_json::json!(text)
    )
}

const END: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":21,"completion_tokens":4}}"#;

#[test]
fn an_answer_is_streamed_and_its_request_says_everything() {
    let (url, server) = serve(vec![events(&[
        r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
        &delta(" It"),
        &delta(" is so. "),
        &delta("ST"),
        &delta("ILL\n"),
        END,
        USAGE,
        "[DONE]",
    ])]);
    let told = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let heard = told.clone();
    let mut request = chat().with_max_tokens(9).with_sampling(u64::MAX, 0.0);
    request.stop = vec!["STOP".into()];
    request.sink = Some(Sink::new(move |text| heard.lock().push(text.to_string())));
    let generation = generator(url).generate(&request).unwrap();
    assert_eq!(generation.text, "It is so. STILL");
    assert_eq!((generation.prompt_tokens, generation.completion_tokens), (21, 4));
    assert_eq!((generation.finish_reason, generation.trace), (FinishReason::Stop, None));
    assert_eq!(*told.lock(), ["It", " is so.", " STILL"]);
    let asked = server.join().unwrap().remove(0);
    let body: serde_json::Value = serde_json::from_str(&asked[asked.find('{').unwrap()..]).unwrap();
    assert!(
        asked.starts_with("POST /v1/chat/completions ") && asked.contains(&format!("Bearer {KEY}")),
        "{asked}"
    );
    assert_eq!(
        body,
        serde_json::json!({
            "model": "theirs", "max_tokens": 9, "temperature": 0.0, "seed": i64::MAX, "stop": ["STOP"], "stream": true,
            "stream_options": { "include_usage": true }, "chat_template_kwargs": { "enable_thinking": false },
            "messages": [{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Hi?" }],
        })
    );
}

#[test]
fn text_is_continued_by_servers_that_do_not_stream_too() {
    let whole = r#"{"choices":[{"text":" upon a time. STOP here","finish_reason":"length","logprobs":{"token_logprobs":[-0.5,-1.0]},"token_ids":[7,8]}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    let (url, server) = serve(vec![("200 OK\r\ncontent-type: application/json", whole.into())]);
    let mut request = GenerateRequest::new(Prompt::Text("Once".into()));
    request.stop = vec!["STOP".into()];
    request.trace = true;
    let generation = generator(url).generate(&request).unwrap();
    assert_eq!((generation.text.as_str(), generation.finish_reason), ("upon a time.", FinishReason::Length));
    assert_eq!(generation.trace, Some(crate::Trace { tokens: vec![7, 8], logprobs: vec![-0.5, -1.0] }));
    assert!(server.join().unwrap()[0].starts_with("POST /v1/completions "));
}

#[test]
fn tokens_and_their_probabilities_are_taken_where_they_are_told() {
    let llama = r#"{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[{"id":5,"token":"a","logprob":-0.25}]}}]}"#;
    let vllm = r#"{"choices":[{"delta":{"content":"b"},"token_ids":[6]}]}"#;
    let (url, server) = serve(vec![events(&[llama, vllm, END])]);
    let generation = generator(url).generate(&GenerateRequest { trace: true, ..chat() }).unwrap();
    assert_eq!(generation.trace, Some(crate::Trace { tokens: vec![5, 6], logprobs: vec![-0.25] }));
    let asked = server.join().unwrap().remove(0);
    assert!(asked.contains("\"return_token_ids\":true") && asked.contains("\"logprobs\":true"));
}

#[test]
fn thoughts_are_no_part_of_an_answer_and_are_not_told() {
    for parts in [
        vec![delta("<thi"), delta("nk>hm"), delta("</think>\n\nYes"), delta(".")],
        vec![r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#.to_string(), delta("Yes.")],
    ] {
        let told = Arc::new(parking_lot::Mutex::new(String::new()));
        let heard = told.clone();
        let mut all: Vec<&str> = parts.iter().map(String::as_str).collect();
        all.push(END);
        let (url, server) = serve(vec![events(&all)]);
        let sink = Some(Sink::new(move |text| heard.lock().push_str(text)));
        let generation = generator(url).generate(&GenerateRequest { sink, ..chat() }).unwrap();
        assert_eq!((generation.text.as_str(), told.lock().as_str()), ("Yes.", "Yes."));
        server.join().unwrap();
    }
}

#[test]
fn what_a_server_does_not_take_is_left_out_from_then_on() {
    let refuse = |name: &str| {
        (
            "400 Bad Request",
            format!(r#"{{"error":{{"message":"Unrecognized request argument supplied: {name}"}}}}"#),
        )
    };
    let (url, server) = serve(vec![
        refuse("chat_template_kwargs"),
        refuse("stream_options"),
        events(&[&delta("a"), END]),
        events(&[&delta("b"), END]),
    ]);
    let mut model = generator(url);
    assert_eq!(model.generate(&chat()).unwrap().text, "a");
    assert_eq!(model.clone().generate(&chat()).unwrap().text, "b");
    let asked = server.join().unwrap();
    assert!(asked[0].contains("stream_options") && !asked[3].contains("stream_options"));
}

#[test]
fn a_prompt_that_is_too_long_is_said_to_be() {
    let said = r#"{"error":{"code":400,"message":"request exceeds the available context size","type":"exceed_context_size_error","n_prompt_tokens":5000,"n_ctx":4096}}"#;
    let (url, server) = serve(vec![("400 Bad Request", said.into())]);
    match generator(url).generate(&chat()) {
        Err(crate::Error::PromptTooLong { tokens: 5000, limit: 3968 }) => {}
        other => panic!("{other:?}"),
    }
    server.join().unwrap();
}

#[test]
fn what_passes_is_tried_again_and_what_does_not_is_told() {
    let (url, server) = serve(vec![
        ("503 Service Unavailable\r\nretry-after: 0", r#"{"error":"loading"}"#.into()),
        // A stream that breaks off is no answer.
        (
            STREAM,
            format!("data: {}\n\ndata: {{\"error\":{{\"message\":\"out of memory\"}}}}\n\n", delta("half")),
        ),
        events(&[&delta("whole"), END]),
    ]);
    let generation = generator(url).generate(&chat()).unwrap();
    assert_eq!((generation.text.as_str(), generation.completion_tokens), ("whole", 1));
    server.join().unwrap();

    let quoted = format!(r#"{{"error":{{"message":"Incorrect API key provided: {KEY}"}}}}"#);
    let (url, server) = serve(vec![("401 Unauthorized", quoted)]);
    let error = generator(url).generate(&chat()).unwrap_err();
    assert!(!error.is_transient() && !error.is_bad_request());
    let error = error.to_string();
    assert!(error.contains("401") && error.contains("Incorrect API key") && !error.contains(KEY), "{error}");
    server.join().unwrap();

    let (url, server) = serve(vec![events(&[&delta("half")])]);
    let error = generator(url).generate(&chat()).unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("broke off"), "{error}");
    server.join().unwrap();

    // Nobody is there, and there is no time to wait for somebody.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut model = generator(Url::parse(&format!("http://{gone}/v1")).unwrap());
    let begun = Instant::now();
    let error = model.generate(&chat().with_deadline(begun + Duration::from_millis(300))).unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("refused"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Sends a first part of an answer, then waits until the connection is closed.
fn endless() -> (Url, mpsc::Receiver<()>, std::thread::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}/v1", listener.local_addr().unwrap())).unwrap();
    let (begun, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).unwrap();
        write!(stream, "HTTP/1.1 {STREAM}\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        let event = format!("data: {}\n\n", delta("half"));
        write!(stream, "{:x}\r\n{event}\r\n", event.len()).unwrap();
        begun.send(()).unwrap();
        // The end of the connection, after the rest of the request perhaps.
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
        1
    });
    (url, wait, thread)
}

#[test]
fn who_gives_up_closes_the_connection_and_keeps_what_came() {
    let (url, begun, server) = endless();
    let request = chat();
    let cancel = request.cancel.clone();
    let canceller = std::thread::spawn(move || {
        begun.recv().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        cancel.cancel();
    });
    let generation = generator(url).generate(&request).unwrap();
    assert_eq!((generation.text.as_str(), generation.finish_reason), ("half", FinishReason::Cancelled));
    canceller.join().unwrap();
    assert_eq!(server.join().unwrap(), 1);

    let (url, _begun, server) = endless();
    let request = chat().with_deadline(Instant::now() + Duration::from_millis(400));
    let generation = generator(url).generate(&request).unwrap();
    assert_eq!((generation.text.as_str(), generation.finish_reason), ("half", FinishReason::Deadline));
    server.join().unwrap();
}

#[test]
fn a_server_that_runs_something_else_says_so_before_anything_is_asked() {
    let look = |answers: Vec<(&'static str, String)>, revision: Option<&str>| {
        let (url, server) = serve(answers);
        let mut endpoint = endpoint(Api::OpenAi, url);
        endpoint.served.revision = revision.map(str::to_string);
        let found = endpoint.look();
        server.join().unwrap();
        found
    };
    let list =
        |entry: &str| vec![("200 OK", format!(r#"{{"object":"list","data":[{{"id":"x"}},{entry}]}}"#))];
    let found = look(list(r#"{"id":"theirs","max_model_len":8192,"revision":"abc"}"#), Some("abc")).unwrap();
    assert_eq!(found.context_tokens, Some(8192));
    assert_eq!(
        look(list(r#"{"id":"theirs:latest","meta":{"n_ctx":2048}}"#), None).unwrap().context_tokens,
        Some(2048)
    );
    let error = look(list(r#"{"id":"other"}"#), None).unwrap_err();
    assert!(!error.is_transient());
    let error = error.to_string();
    assert!(error.contains("it serves x, other, not `theirs`"), "{error}");
    let error = look(list(r#"{"id":"theirs","revision":"abc"}"#), Some("def")).unwrap_err().to_string();
    assert!(error.contains("of revision abc, not def"), "{error}");
    assert_eq!(look(vec![("404 Not Found", String::new())], None).unwrap(), Identity::default());
    let error = look(vec![("200 OK", "<html>".into())], None).unwrap_err().to_string();
    assert!(error.contains("not JSON"), "{error}");
    let error = look(vec![("307 Temporary Redirect\r\nlocation: http://elsewhere/", String::new())], None);
    assert!(error.unwrap_err().to_string().contains("write that address"));
}

#[test]
fn no_secret_is_shown() {
    for address in [
        "http://user:hunter2@h/v1",
        "http://hunter2@h/v1",
        "http://h/v1?key=hunter2",
        "http://h/v1#hunter2",
        "ftp://hunter2/v1",
        "hunter2",
    ] {
        let error = address.parse::<Address>().unwrap_err();
        assert!(error.contains("address") && !error.contains("hunter2"), "{error}");
    }
    let shown = format!("{:?}", endpoint(Api::OpenAi, Url::parse("https://h:1/v1").unwrap()));
    assert!(shown.contains("https://h:1/v1") && !shown.contains(KEY), "{shown}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        read_key(&file).map(|key| key.expose_secret().to_string()).map_err(|e| e.to_string())
    };
    assert_eq!(read("hunter2\n").unwrap(), "hunter2");
    for bad in ["", "\n", "hunter2\nmore", "hunter2 more"] {
        let error = read(bad).unwrap_err();
        assert!(error.contains("key") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn the_digest_is_that_of_what_the_owner_says() {
    let with = |revision: Option<&str>| Served {
        model: "Qwen/Qwen2.5-7B-Instruct".into(),
        revision: revision.map(str::to_string),
    };
    // blake2b-256 of `poq/endpoint/v1{"model":"Qwen/Qwen2.5-7B-Instruct"}`, by Python's hashlib.
    assert_eq!(
        with(None).digest().to_string(),
        "0x1a7575be3ba9bba8654200c515705d3b08f8bfe145f8fb7ee12aa39f2abc504c"
    );
    // … `{"model":"Qwen/Qwen2.5-7B-Instruct","revision":"a09a354"}`
    assert_eq!(
        with(Some("a09a354")).digest().to_string(),
        "0xd30044daa4381b2b6c1e3b3a65c70bc9ed7460b8f975fd18465501dc782cdb97"
    );
}

fn json(body: &str) -> (&'static str, String) {
    ("200 OK\r\ncontent-type: application/json", body.to_string())
}

#[test]
fn texts_are_embedded_and_pairs_are_scored_by_tei() {
    let info = r#"{"model_id":"theirs","model_sha":"abc","model_type":{"embedding":{"pooling":"mean"}},"max_input_length":512,"max_client_batch_size":2}"#;
    let (url, server) =
        serve(vec![json(info), json("[[3,4]]"), json("[[3,4],[0,2]]"), json("[[1,0]]"), json("[[1,0,0]]")]);
    let base = |mut url: Url| {
        url.set_path("/");
        url
    };
    let mut encoder = endpoint(Api::Tei, base(url)).encoder().unwrap();
    assert_eq!((encoder.dimension(), encoder.name()), (2, "ours"));
    let vectors = encoder.embed(&["a", "", "c"]).unwrap();
    assert_eq!(vectors, [[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]]);
    assert!(encoder.embed(&["d"]).unwrap_err().to_string().contains("3 numbers"));
    let asked = server.join().unwrap();
    assert!(asked[0].starts_with("GET /info ") && asked[1].starts_with("POST /embed "), "{asked:?}");
    assert!(asked[2].ends_with(r#"{"inputs":["a"," "],"normalize":true,"truncate":true}"#), "{}", asked[2]);

    let scores = |scores: &[f32]| {
        let list: Vec<_> =
            scores.iter().enumerate().map(|(i, s)| format!(r#"{{"index":{i},"score":{s}}}"#)).rev().collect();
        json(&format!("[{}]", list.join(",")))
    };
    let (url, server) =
        serve(vec![json(info), scores(&[0.5]), scores(&[1.5, -2.5]), scores(&[7.0]), json("[]")]);
    let mut encoder = endpoint(Api::Tei, base(url)).cross_encoder().unwrap();
    assert_eq!(encoder.score(&[("q", "a"), ("q", "b"), ("r", "a")]).unwrap(), [1.5, -2.5, 7.0]);
    assert!(encoder.score(&[("q", "a")]).unwrap_err().to_string().contains("reranker"));
    let asked = server.join().unwrap();
    assert!(
        asked[2].ends_with(r#"{"query":"q","raw_scores":true,"texts":["a","b"],"truncate":true}"#),
        "{}",
        asked[2]
    );

    let other = info.replace("theirs", "another");
    let (url, server) = serve(vec![json(&other)]);
    let error = endpoint(Api::Tei, base(url)).cross_encoder().err().unwrap().to_string();
    assert!(error.contains("it serves `another`, not `theirs`"), "{error}");
    server.join().unwrap();
}

#[test]
fn texts_are_embedded_by_openais_api_and_cut_where_they_are_too_long() {
    let list = json(r#"{"data":[{"id":"theirs"}]}"#);
    let long = "word ".repeat(100);
    let (url, server) = serve(vec![
        list.clone(),
        json(r#"{"data":[{"index":0,"embedding":[3.0,4.0]}]}"#),
        (
            "400 Bad Request",
            r#"{"error":{"message":"This model's maximum context length is 64 tokens"}}"#.into(),
        ),
        json(r#"{"data":[{"index":1,"embedding":[0.0,1.0]},{"index":0,"embedding":[1.0,0.0]}]}"#),
        json(r#"{"data":[]}"#),
    ]);
    let mut encoder = endpoint(Api::OpenAi, url).encoder().unwrap();
    assert_eq!(encoder.embed(&[&long, "b"]).unwrap(), [[1.0, 0.0], [0.0, 1.0]]);
    assert!(encoder.embed(&["c"]).unwrap_err().to_string().contains("each of 1"));
    let asked = server.join().unwrap();
    assert!(asked[1].starts_with("POST /v1/embeddings ") && asked[3].len() < asked[2].len() - 200);

    let (url, server) = serve(vec![list, json(r#"{"data":[{"index":0,"embedding":[3.0,4.0]}]}"#)]);
    let expected = Endpoint { dimension: Some(384), ..endpoint(Api::OpenAi, url) };
    assert!(expected.encoder().err().unwrap().to_string().contains("those of `ours` have 384"));
    server.join().unwrap();
}
