//! Answers that a JSON schema accepts: at each place the tokens that can go on are known.

use galen_model::tokenizer::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Makes constraints for one tokenizer; what they share is made with the first.
pub(crate) struct Grammars {
    tokenizer: Arc<Tokenizer>,
    vocab_size: usize,
    factory: OnceLock<Result<ParserFactory, String>>,
}

impl Grammars {
    pub fn new(tokenizer: Arc<Tokenizer>, vocab_size: usize) -> Self {
        Self { tokenizer, vocab_size, factory: OnceLock::new() }
    }

    /// Errors, in words: a schema that is none, or that asks for what cannot be held.
    pub fn constraint(&self, schema: &Value) -> Result<Constraint, String> {
        let factory = self.factory.get_or_init(|| self.factory()).as_ref().map_err(Clone::clone)?;
        let mut schema = schema.clone();
        let Value::Object(map) = &mut schema else { return Err("the schema is not an object".into()) };
        // One space after `,` and `:` and none elsewhere: a model could go on with white space for ever.
        let options = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
        map.entry("x-guidance").or_insert(options);
        let parser = factory.create_parser(TopLevelGrammar::from_json_schema(schema));
        let matcher = Matcher::new(parser);
        match matcher.get_error() {
            Some(e) => Err(e.lines().next().unwrap_or_default().to_owned()),
            None => Ok(Constraint { matcher: Mutex::new(matcher), eos: self.tokenizer.eos_ids().into() }),
        }
    }

    fn factory(&self) -> Result<ParserFactory, String> {
        let Some(eos) = self.tokenizer.eos_ids().first() else {
            return Err("the model has no token that ends an answer".into());
        };
        let control = self.tokenizer.control_tokens();
        let word = |id: u32| {
            let bytes = self.tokenizer.token_bytes(id).unwrap_or_default();
            let special = std::str::from_utf8(&bytes).is_ok_and(|t| control.iter().any(|c| c == t));
            // A control token is no part of a text that reads alike.
            if special { [&[TokTrie::SPECIAL_TOKEN_MARKER], &bytes[..]].concat() } else { bytes }
        };
        let words: Vec<Vec<u8>> = (0..self.vocab_size as u32).map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(self.vocab_size as u32, *eos), &words);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(|e| e.to_string())?;
        factory.quiet();
        Ok(factory)
    }
}

/// What may still follow.
pub(crate) struct Constraint {
    matcher: Mutex<Matcher>,
    eos: Arc<[u32]>,
}

impl Constraint {
    /// The same from its beginning, for another completion.
    pub fn again(&self) -> Self {
        let matcher = self.matcher.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        Self { matcher: Mutex::new(matcher), eos: self.eos.clone() }
    }

    /// Leaves possible what may follow. Errors: nothing may.
    pub fn restrict(&mut self, logits: &mut [f32]) -> Result<(), String> {
        let matcher = self.matcher.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mask = matcher.compute_mask_or_eos().map_err(|e| e.to_string())?;
        let may_end = self.eos.first().is_some_and(|id| mask.is_allowed(*id));
        for (id, logit) in logits.iter_mut().enumerate() {
            let id = id as u32;
            let possible = mask.is_allowed(id) || (may_end && self.eos.contains(&id));
            if !possible {
                *logit = f32::NEG_INFINITY;
            }
        }
        if logits.iter().any(|l| *l > f32::NEG_INFINITY) {
            Ok(())
        } else {
            Err("the schema allows no token".into())
        }
    }

    /// Goes on behind a token. True where the answer is complete.
    pub fn accept(&mut self, id: u32) -> Result<bool, String> {
        let matcher = self.matcher.get_mut().unwrap_or_else(PoisonError::into_inner);
        matcher.consume_token(id).map_err(|e| e.to_string())?;
        Ok(matcher.is_stopped())
    }
}
