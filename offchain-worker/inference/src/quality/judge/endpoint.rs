//! A judge behind an OpenAI-compatible endpoint.

use super::{
    at_once, cut, grade::without_thoughts, parse_reply, prompt, Judge, Verdict, REPLY_TOKENS, THINKING_TOKENS,
};
use crate::{
    data::TaskKind,
    endpoint::{Client, Form, Limits, Reply},
    error::{Error, Result},
    quality::Query,
};
use secrecy::SecretString;
use std::time::{Duration, Instant};
use url::Url;

/// What tokens cost, per million, in whatever currency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// A million tokens read.
    pub prompt: f64,
    /// A million tokens written.
    pub completion: f64,
}

/// Where a judge is and how it is asked.
#[derive(Debug, Clone)]
pub struct EndpointOptions {
    /// The address before `/chat/completions`, for example `https://api.openai.com/v1` or `http://127.0.0.1:8080/v1`.
    pub base: Url,
    /// The model's name there.
    pub model: String,
    /// The key, where one is asked for.
    pub key: Option<SecretString>,
    /// How long one try may take.
    pub timeout: Duration,
    /// Tries after the first, for failures that may pass.
    pub retries: usize,
    /// The pause before the first retry; it doubles each time, up to half a minute, with jitter.
    pub pause: Duration,
    /// What tokens cost, where that is to be recorded.
    pub prices: Option<Prices>,
}

impl EndpointOptions {
    /// A minute a try, four retries.
    pub fn new(base: Url, model: impl Into<String>) -> Self {
        Self {
            base,
            model: model.into(),
            key: None,
            timeout: Duration::from_secs(60),
            retries: 4,
            pause: Duration::from_millis(500),
            prices: None,
        }
    }
}

/// Tokens beyond which a model that still thinks is given up.
const MOST_TOKENS: usize = 8_192;

/// Changes of form in one verdict: each of the parts that a server may refuse, and more room twice.
const CHANGES: usize = 6;

/// A judge behind an endpoint. It blocks while it waits: from async code use it through `spawn_blocking`.
pub struct EndpointJudge {
    name: String,
    options: EndpointOptions,
    client: Client,
    form: Form,
    /// Tokens that it is given for a verdict.
    tokens: usize,
}

impl EndpointJudge {
    /// A judge; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Judge`] where the address cannot be one, or TLS cannot be set up.
    pub fn new(options: EndpointOptions) -> Result<Self> {
        let name = format!("judge/{}", options.model);
        let fail = |reason: String| Error::Judge { judge: name.clone(), reason };
        if options.base.cannot_be_a_base() {
            return Err(fail("its address cannot be an endpoint's".to_string()));
        }
        let client = Client::new(options.base.clone(), options.key.clone()).map_err(fail)?;
        Ok(Self { name, options, client, form: Form::USUAL, tokens: REPLY_TOKENS })
    }

    /// Leaves out, or puts otherwise, what a refusal names. Whether there was something.
    fn adapt(&mut self, refusal: &str) -> bool {
        let thought = self.form.thinks();
        let adapted = self.form.adapt(refusal);
        if self.form.thinks() && !thought {
            self.tokens = self.tokens.max(THINKING_TOKENS);
        }
        adapted
    }
}

/// Whether more tokens may give a reply a grade.
fn wants_room(reply: &Reply) -> bool {
    let thinks = !reply.thoughts.is_empty() || without_thoughts(&reply.text).is_none();
    reply.cut_off && (thinks || reply.text.trim().is_empty())
}

fn grade(reply: &Reply) -> std::result::Result<f64, String> {
    if let Some(refusal) = &reply.refusal {
        return Err(format!("it refused: {}", cut(refusal)));
    }
    if !reply.text.trim().is_empty() {
        return parse_reply(&reply.text).map_err(str::to_string);
    }
    if reply.thoughts.is_empty() {
        return Err("the content of its answer is empty".to_string());
    }
    if reply.cut_off {
        return Err(format!("it thought for more than {MOST_TOKENS} tokens and said nothing"));
    }
    // Servers that do not find the end of the thoughts take all for thoughts: the last line is what was said.
    let last = reply.thoughts.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    parse_reply(last)
        .map_err(|why| format!("its answer is empty and all it said is in its reasoning, where {why}"))
}

impl Judge for EndpointJudge {
    fn name(&self) -> &str {
        &self.name
    }

    fn judge(&mut self, kind: TaskKind, query: &Query, output: &str) -> Result<Verdict> {
        if let Some(verdict) = at_once(query, output) {
            return Ok(verdict);
        }
        let started = Instant::now();
        let messages = prompt(kind, query, output);
        let mut attempts = 0;
        let limits = Limits {
            silence: self.options.timeout,
            retries: self.options.retries,
            pause: self.options.pause,
            ..Limits::default()
        };
        let (mut read, mut written) = (0u64, 0u64);
        let mut changes = 0;
        let reply = loop {
            let body = self.form.verdict(&self.options.model, &messages, self.tokens);
            let answer = match self.client.counted("chat/completions", Some(&body), &limits) {
                Ok((answer, asked)) => {
                    attempts += asked;
                    answer
                }
                Err(failure) => {
                    attempts += failure.attempts;
                    let refusal = failure.refusal.as_deref().unwrap_or_default();
                    if changes < CHANGES && self.adapt(refusal) {
                        changes += 1;
                        tracing::info!(judge = %self.name, form = ?self.form, "the endpoint wants another form");
                        continue;
                    }
                    return Err(Error::Judge {
                        judge: self.name.clone(),
                        reason: format!("{} (asked {attempts} times)", failure.reason),
                    });
                }
            };
            read += answer["usage"]["prompt_tokens"].as_u64().unwrap_or(0);
            written += answer["usage"]["completion_tokens"].as_u64().unwrap_or(0);
            let reply = Reply::of(&answer);
            if changes < CHANGES && self.tokens < MOST_TOKENS && reply.as_ref().is_some_and(wants_room) {
                changes += 1;
                self.tokens = if self.tokens < THINKING_TOKENS { THINKING_TOKENS } else { MOST_TOKENS };
                continue;
            }
            break reply;
        };
        let grade = match &reply {
            Some(reply) => grade(reply),
            None => Err("the answer has no choices".to_string()),
        };
        let said = reply.map(|reply| if reply.text.trim().is_empty() { reply.thoughts } else { reply.text });
        let cost = |prices: Prices| (read as f64 * prices.prompt + written as f64 * prices.completion) / 1e6;
        Ok(Verdict {
            score: grade.as_ref().ok().copied(),
            problem: grade.err(),
            reply: cut(&said.unwrap_or_default()),
            wall_ms: started.elapsed().as_secs_f64() * 1e3,
            attempts,
            prompt_tokens: read,
            completion_tokens: written,
            cost: self.options.prices.map(cost),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::testing::serve;

    fn completion(text: &str) -> String {
        format!(
            r#"{{"choices":[{{"message":{{"role":"assistant","content":"{text}"}}}}],"usage":{{"prompt_tokens":200,"completion_tokens":2}}}}"#
        )
    }

    fn judge(base: Url, retries: usize) -> EndpointJudge {
        EndpointJudge::new(EndpointOptions {
            key: Some("sesame".into()),
            pause: Duration::from_millis(1),
            retries,
            prices: Some(Prices { prompt: 1.0, completion: 10.0 }),
            ..EndpointOptions::new(base, "m")
        })
        .unwrap()
    }

    fn query() -> Query {
        Query { context: "c".into(), question: "q".into() }
    }

    #[test]
    fn a_busy_endpoint_is_asked_again_and_the_cost_is_recorded() {
        let (base, server) = serve(vec![
            ("429 Too Many Requests\r\nretry-after: 0", String::new()),
            ("503 Service Unavailable", "later".into()),
            ("200 OK", completion("8")),
        ]);
        let verdict = judge(base, 4).judge(TaskKind::Qa, &query(), "an answer").unwrap();
        assert_eq!(verdict.score, Some(0.8));
        assert_eq!(verdict.attempts, 3);
        assert!((verdict.cost.unwrap() - 220e-6).abs() < 1e-12);
        let asked = server.join().unwrap();
        assert!(
            asked[2].contains("POST /v1/chat/completions") && asked[2].contains("Bearer sesame"),
            "{}",
            asked[2]
        );
        assert!(asked[2].contains("an answer") && asked[2].contains(r#""temperature":0.0"#), "{}", asked[2]);
    }

    #[test]
    fn a_refusal_is_final_and_says_why() {
        let (base, server) = serve(vec![("401 Unauthorized", "no such key".into())]);
        let error = judge(base, 4).judge(TaskKind::Qa, &query(), "an answer").unwrap_err().to_string();
        assert!(
            error.contains("401") && error.contains("no such key") && !error.contains("sesame"),
            "{error}"
        );
        assert_eq!(server.join().unwrap().len(), 1);
    }

    #[test]
    fn an_endpoint_that_stays_down_is_given_up() {
        let down = || ("500 Internal Server Error", String::new());
        let (base, server) = serve(vec![down(), down()]);
        let error = judge(base, 1).judge(TaskKind::Qa, &query(), "an answer").unwrap_err().to_string();
        assert!(error.contains("asked 2 times"), "{error}");
        server.join().unwrap();
    }

    fn answer(message: &str, finish: &str) -> (&'static str, String) {
        (
            "200 OK",
            format!(
                r#"{{"choices":[{{"index":0,"message":{message},"finish_reason":"{finish}"}}],"usage":null}}"#
            ),
        )
    }

    #[test]
    fn what_is_no_grade_is_no_verdict_and_says_why() {
        for (given, why) in [
            (answer(r#"{"content":"I cannot judge that"}"#, "stop"), "no number"),
            (("200 OK", r#"{"choices":[]}"#.into()), "no choices"),
            (answer(r#"{"content":null}"#, "stop"), "empty"),
            (answer(r#"{"content":null,"refusal":"I will not"}"#, "stop"), "I will not"),
            (answer(r#"{"content":"","reasoning_content":"It has 3 facts."}"#, "stop"), "reasoning"),
            (answer(r#"{"content":"<think>3</think>"}"#, "stop"), "said nothing"),
        ] {
            let (base, server) = serve(vec![given]);
            let verdict = judge(base, 0).judge(TaskKind::Qa, &query(), "an answer").unwrap();
            assert_eq!(verdict.score, None);
            let problem = verdict.problem.unwrap();
            assert!(problem.contains(why), "{problem}");
            server.join().unwrap();
        }
    }

    #[test]
    fn a_grade_is_found_wherever_the_server_puts_it() {
        for given in [
            answer(r#"{"content":[{"type":"text","text":"8"}]}"#, "stop"),
            answer(r#"{"content":"8","reasoning_content":"perhaps 2"}"#, "stop"),
            answer(r#"{"content":"<think>2</think>8"}"#, "stop"),
            answer(r#"{"content":null,"reasoning_content":"perhaps 2\nScore: 8"}"#, "stop"),
            answer(r#"{"content":"","reasoning":"perhaps 2\n8"}"#, "stop"),
            ("200 OK", r#"{"choices":[{"text":"8"}]}"#.into()),
        ] {
            let (base, server) = serve(vec![given.clone()]);
            let verdict = judge(base, 0).judge(TaskKind::Qa, &query(), "an answer").unwrap();
            assert_eq!((verdict.score, verdict.problem), (Some(0.8), None), "{given:?}");
            server.join().unwrap();
        }
    }

    #[test]
    fn a_model_that_thinks_is_asked_in_its_form_and_given_the_room() {
        let refuse = |param: &str| {
            let text = format!(
                r#"{{"error":{{"message":"Unsupported: '{param}'. Use 'max_completion_tokens'.","param":"{param}","code":"unsupported_parameter"}}}}"#
            );
            ("400 Bad Request", text)
        };
        let (base, server) = serve(vec![
            refuse("max_tokens"),
            refuse("temperature"),
            answer(r#"{"content":"","reasoning_content":"hm"}"#, "length"),
            answer(r#"{"content":"8"}"#, "stop"),
            answer(r#"{"content":"7"}"#, "stop"),
        ]);
        let mut judge = judge(base, 0);
        let verdict = judge.judge(TaskKind::Qa, &query(), "an answer").unwrap();
        assert_eq!((verdict.score, verdict.attempts), (Some(0.8), 4));
        // What was learnt is kept.
        assert_eq!(judge.judge(TaskKind::Qa, &query(), "another").unwrap().attempts, 1);
        let asked = server.join().unwrap();
        assert!(asked[0].contains("\"max_tokens\":24") && !asked[0].contains("max_completion_tokens"));
        assert!(asked[1].contains("\"max_completion_tokens\":2048") && asked[1].contains("temperature"));
        assert!(!asked[2].contains("\"max_tokens\"") && !asked[2].contains("temperature"));
        assert!(asked[3].contains("\"max_completion_tokens\":8192"), "{}", asked[3]);
    }

    #[test]
    fn a_server_without_a_system_role_gets_one_message() {
        let (base, server) = serve(vec![
            ("400 Bad Request", r#"{"error":{"message":"System role not supported"}}"#.to_lowercase()),
            answer(r#"{"content":"8"}"#, "stop"),
        ]);
        assert_eq!(judge(base, 0).judge(TaskKind::Qa, &query(), "an answer").unwrap().score, Some(0.8));
        let asked = server.join().unwrap();
        assert!(asked[0].contains("\"system\"") && !asked[1].contains("\"system\""));
        assert!(asked[1].contains("You grade answers strictly"));
    }

    #[test]
    fn thinking_without_end_is_said_and_an_error_in_a_200_is_one() {
        let endless = || answer(r#"{"content":"","reasoning_content":"hm"}"#, "length");
        let (base, server) = serve(vec![endless(), endless(), endless()]);
        let verdict = judge(base, 0).judge(TaskKind::Qa, &query(), "an answer").unwrap();
        assert!(verdict.score.is_none() && verdict.problem.unwrap().contains("8192"));
        server.join().unwrap();
        let (base, server) =
            serve(vec![("200 OK", r#"{"error":{"message":"no credit for sesame"}}"#.into())]);
        let error = judge(base, 0).judge(TaskKind::Qa, &query(), "an answer").unwrap_err().to_string();
        assert!(error.contains("no credit") && !error.contains("sesame"), "{error}");
        server.join().unwrap();
    }
}
