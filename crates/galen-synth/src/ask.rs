//! Asking a model: the prompt, how it answers, and what is done where the answer is not what it should be.

use crate::context::{Context, Tally, variables};
use crate::error::{Stop, SynthError};
use crate::registry::Setup;
use crate::row::{Row, random};
use crate::shape::Shape;
use galen_engine::{Answer, EngineError, Event, Finish, Input, Options, Request, Sampling};
use galen_reward::{ConfigError, Kind, Param};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a request waits that the engine has no place for.
const PAUSE: Duration = Duration::from_millis(10);
/// Characters of an answer that a failure shows.
const SHOWN_CHARS: usize = 160;

/// Of an answer's first token, the likeliest that are asked for.
const TOP_TOKENS: usize = 20;

/// Who is asked and how answers are drawn.
pub(crate) const ENGINE: &[Param] = &[
    Param::optional("engine", Kind::Text, "a name under `engines`; may be left out where there is one"),
    Param::with("max_tokens", Kind::Count, "256", "most tokens of an answer"),
    Param::with("temperature", Kind::Number, "0.7", "0 takes the likeliest token each time"),
    Param::with("top_p", Kind::Number, "1", "keep the likeliest tokens up to this probability"),
    Param::with("top_k", Kind::Count, "0", "keep so many of the likeliest tokens; 0: all"),
    Param::with(
        "min_p",
        Kind::Number,
        "0",
        "keep tokens of at least this share of the likeliest one's probability",
    ),
    Param::with(
        "repeat_penalty",
        Kind::Number,
        "1",
        "above 1 makes tokens that are there already less likely",
    ),
    Param::optional("stop", Kind::Texts, "the answer ends before the first of these"),
    Param::optional("system", Kind::Text, "the system turn, a template; without it there is none"),
    Param::with("raw", Kind::Flag, "false", "the prompt is continued as plain text, without a chat template"),
];

/// Answers that are to be JSON.
pub(crate) const SCHEMA: &[Param] = &[
    Param::optional(
        "schema",
        Kind::Value("a JSON schema"),
        "answers are JSON of this schema; their fields become the row's",
    ),
    Param::with(
        "retries",
        Kind::Count,
        "2",
        "times a row is asked about again whose answer is empty or not of the schema",
    ),
];

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    /// Trimmed, never empty.
    pub text: String,
    /// Whether the limit cut it.
    pub cut: bool,
    /// Where a schema was asked for.
    pub json: Option<Value>,
}

/// The asking half: engine and sampling.
pub(crate) struct Ask {
    pub engine: String,
    system: Option<String>,
    raw: bool,
    options: Options,
    shape: Option<Shape>,
    retries: usize,
}

impl Ask {
    /// From [`ENGINE`], without a schema.
    pub fn new(setup: &Setup<'_>) -> Result<Self, ConfigError> {
        let o = setup.options;
        let bounded = |name: &str, low: f64, high: f64| match o.number(name)? {
            x if x >= low && x <= high => Ok(x as f32),
            x => Err(o.wrong(name, format!("takes {low} to {high}, not `{x}`"))),
        };
        let sampling = Sampling {
            temperature: bounded("temperature", 0.0, 10.0)?,
            top_k: o.count("top_k")?,
            top_p: bounded("top_p", 0.0, 1.0)?,
            min_p: bounded("min_p", 0.0, 1.0)?,
            repeat_penalty: bounded("repeat_penalty", 0.01, 100.0)?,
            seed: 0,
        };
        let system = match o.maybe_text("system")? {
            Some(text) => Some(setup.inline("system", &text)?.name),
            None => None,
        };
        let (max_tokens, stop) = (o.positive("max_tokens")?, o.texts("stop")?);
        setup.used.borrow_mut().sampling = Some(json!({
            "temperature": o.number("temperature")?, "top_k": sampling.top_k, "top_p": o.number("top_p")?,
            "min_p": o.number("min_p")?, "repeat_penalty": o.number("repeat_penalty")?, "max_tokens": max_tokens,
        }));
        Ok(Self {
            engine: setup.engine()?,
            system,
            raw: o.flag("raw")?,
            options: Options { sampling, max_tokens: Some(max_tokens), stop, ..Options::default() },
            shape: None,
            retries: 2,
        })
    }

    /// From [`ENGINE`] and [`SCHEMA`].
    pub fn with_schema(setup: &Setup<'_>) -> Result<Self, ConfigError> {
        let mut this = Self::new(setup)?;
        this.retries = setup.options.count("retries")?;
        if let Some(schema) = setup.options.value("schema")? {
            if !schema.is_object() {
                return Err(setup.options.wrong("schema", "takes a map: a JSON schema"));
            }
            this.shape = Some(Shape::new(schema).map_err(|what| setup.options.wrong("schema", what))?);
        }
        Ok(this)
    }

    /// `n` answers to a prompt. Those that are empty or of another shape are asked for again with other seeds.
    pub fn run(
        &self,
        cx: &Context<'_>,
        tally: &mut Tally,
        row: &Row,
        prompt: &str,
        n: usize,
    ) -> Result<Vec<Reply>, Stop> {
        let seed = cx.seed_of(row) ^ hash(prompt);
        let input = self.input(cx, row, prompt)?;
        let mut out = Vec::with_capacity(n);
        let mut wrong = String::new();
        for attempt in 0..=self.retries {
            if attempt > 0 && self.options.sampling.temperature <= 0.0 && cx.teacher(&self.engine)?.repeats {
                // The same answer would come again.
                break;
            }
            // 53 bits: what JSON carries to an endpoint, so that all engines are given the same.
            let seed = random(seed, attempt as u64).next_u64() >> 11;
            for text in self.texts(cx, tally, input.clone(), seed, n - out.len())? {
                match self.read(text) {
                    Ok(reply) => out.push(reply),
                    Err(what) => wrong = what,
                }
            }
            if out.len() == n {
                return Ok(out);
            }
            tally.figure("asked again", 1.0);
        }
        if !out.is_empty() {
            return Ok(out);
        }
        let reason = if self.shape.is_some() { "answer not of the schema" } else { "answer empty" };
        Err(Stop::failed(reason, wrong))
    }

    /// One answer.
    pub fn one(&self, cx: &Context<'_>, tally: &mut Tally, row: &Row, prompt: &str) -> Result<Reply, Stop> {
        let mut replies = self.run(cx, tally, row, prompt, 1)?;
        replies.pop().ok_or_else(|| Stop::failed("answer empty", ""))
    }

    fn read(&self, (text, cut): (String, bool)) -> Result<Reply, String> {
        let text = text.trim().to_owned();
        if text.is_empty() {
            return Err("the answer is empty".into());
        }
        let json = match &self.shape {
            None => None,
            Some(shape) => {
                let cut = if cut { ", cut by `max_tokens`" } else { "" };
                let shown: String = text.chars().take(SHOWN_CHARS).collect();
                Some(shape.read(&text).map_err(|what| format!("the answer{cut} {what}: `{shown}`"))?)
            }
        };
        Ok(Reply { text, cut, json })
    }

    fn input(&self, cx: &Context<'_>, row: &Row, prompt: &str) -> Result<Input, Stop> {
        if self.raw {
            return Ok(Input::Text(prompt.to_owned()));
        }
        let mut messages = Vec::new();
        if let Some(system) = &self.system {
            messages.push(json!({"role": "system", "content": cx.render(system, &variables(row))?}));
        }
        messages.push(json!({"role": "user", "content": prompt}));
        Ok(Input::Chat(messages))
    }

    /// Answers as they come, each with whether the limit cut it.
    fn texts(
        &self,
        cx: &Context<'_>,
        tally: &mut Tally,
        input: Input,
        seed: u64,
        n: usize,
    ) -> Result<Vec<(String, bool)>, Stop> {
        let teacher = cx.teacher(&self.engine)?;
        let mut options = Options { n, ..self.options.clone() };
        options.sampling.seed = seed;
        options.schema = self.shape.as_ref().filter(|_| teacher.constrains).map(|s| s.schema.clone());
        let mut answer = self.submit(cx, input, options)?;
        let mut texts = vec![(String::new(), None); n];
        let mut tokens = answer.prompt_tokens;
        while let Some(event) = answer.next_blocking() {
            match event {
                Event::Piece { choice, piece } => {
                    if let Some((text, _)) = texts.get_mut(choice) {
                        text.push_str(&piece.text);
                    }
                }
                Event::End { choice, finish, tokens } => {
                    tally.usage[1] += tokens as u64;
                    if let Some((_, end)) = texts.get_mut(choice) {
                        *end = Some(finish);
                    }
                }
                Event::Prompt { tokens: more } => tokens += more,
                Event::Failed(what) => {
                    tally.usage[2] += 1;
                    return Err(Stop::failed(ENGINE_FAILED, what));
                }
                Event::Refused(what) => return Err(self.broken(cx, &what)),
            }
        }
        tally.usage[0] += tokens as u64;
        tally.usage[2] += 1;
        // Without an end the engine was stopped.
        let ended = |(text, end): (String, Option<Finish>)| Some((text, end? == Finish::Length));
        texts.into_iter().map(ended).collect::<Option<Vec<_>>>().ok_or_else(|| SynthError::Stopped.into())
    }

    /// The likeliest first tokens of an answer with their log-probabilities, likeliest first.
    pub fn first_tokens(
        &self,
        cx: &Context<'_>,
        tally: &mut Tally,
        row: &Row,
        prompt: &str,
    ) -> Result<Vec<(String, f64)>, Stop> {
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        let options = Options {
            sampling,
            max_tokens: Some(1),
            logprobs: Some(TOP_TOKENS),
            // Where an end is the likeliest, the letters behind it count all the same.
            ignore_eos: true,
            ..Options::default()
        };
        let mut answer = self.submit(cx, self.input(cx, row, prompt)?, options)?;
        tally.usage[0] += answer.prompt_tokens as u64;
        tally.usage[2] += 1;
        let mut top = Vec::new();
        let mut ended = false;
        while let Some(event) = answer.next_blocking() {
            match event {
                Event::Piece { piece, .. } => {
                    let tokens = piece.tokens.into_iter().next().map(|t| t.top).unwrap_or_default();
                    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                    top.extend(
                        tokens.into_iter().map(|(_, bytes, logprob)| (text(bytes), f64::from(logprob))),
                    );
                }
                Event::End { tokens, .. } => {
                    tally.usage[1] += tokens as u64;
                    ended = true;
                }
                Event::Prompt { .. } => {}
                Event::Failed(what) => return Err(Stop::failed(ENGINE_FAILED, what)),
                Event::Refused(what) => return Err(self.broken(cx, &what)),
            }
        }
        if ended { Ok(top) } else { Err(SynthError::Stopped.into()) }
    }

    /// Hands a request to the engine, which may have to be waited for.
    fn submit(&self, cx: &Context<'_>, input: Input, options: Options) -> Result<Answer, Stop> {
        let teacher = cx.teacher(&self.engine)?;
        let request = Request { model: teacher.model.clone(), inputs: vec![input], options };
        loop {
            if cx.stopped() {
                return Err(SynthError::Stopped.into());
            }
            match teacher.engine.generate(request.clone()) {
                Ok(answer) => return Ok(answer),
                Err(EngineError::QueueFull) => std::thread::sleep(PAUSE),
                Err(EngineError::Stopping) => return Err(SynthError::Stopped.into()),
                Err(e @ EngineError::TooLong { .. }) => {
                    return Err(Stop::failed("prompt too long", e.to_string()));
                }
                Err(e @ EngineError::Invalid { .. }) => {
                    return Err(Stop::failed("refused by the engine", e.to_string()));
                }
                Err(e) => return Err(self.broken(cx, &e.to_string())),
            }
        }
    }

    fn broken(&self, cx: &Context<'_>, what: &str) -> Stop {
        Stop::Run(SynthError::step(cx.label, format!("engine `{}`: {what}", self.engine)))
    }
}

/// The reason of a row that the engine did not answer; many in a row end the run.
pub(crate) const ENGINE_FAILED: &str = "no answer";

fn hash(text: &str) -> u64 {
    crate::row::seed_of(0, "prompt", text)
}
