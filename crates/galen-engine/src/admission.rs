//! What every engine asks of a request before it takes it.

use crate::engine::EngineError;
use crate::request::{Encode, Input, Options};

/// What a model takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Token ids are below.
    pub vocab_size: usize,
    /// Most tokens of prompt and answer.
    pub max_model_tokens: usize,
    /// Most completions of a request.
    pub max_sequences: usize,
}

impl Limits {
    /// Options that do not depend on the prompt.
    pub fn check(&self, options: &Options) -> Result<(), EngineError> {
        let (n, most) = (options.n, self.max_sequences);
        if n == 0 || n > most {
            let what = format!("{n} completions, and this server makes 1 to {most}");
            return Err(EngineError::Invalid { field: "n", what });
        }
        self.check_ids("logit_bias", options.logit_bias.iter().map(|(id, _)| *id))
    }

    /// A prompt's ids, and how many tokens may follow: as many as fit, at most `held`, where the request does not say.
    pub fn admit(
        &self,
        encode: &dyn Encode,
        input: &Input,
        options: &Options,
        held: usize,
    ) -> Result<(Vec<u32>, usize), EngineError> {
        let field = if matches!(input, Input::Chat(_)) { "messages" } else { "prompt" };
        let ids = encode.encode(input).map_err(|what| EngineError::Invalid { field, what })?;
        if ids.is_empty() {
            return Err(EngineError::Invalid { field, what: "the prompt has no token".into() });
        }
        self.check_ids(field, ids.iter().copied())?;
        let limit = self.max_model_tokens;
        let room = limit.saturating_sub(ids.len());
        let answer = options.max_tokens.unwrap_or(room.min(held.saturating_sub(ids.len())));
        if ids.len() >= limit || answer > room {
            let field = if ids.len() >= limit { field } else { "max_tokens" };
            return Err(EngineError::TooLong { field, prompt: ids.len(), answer, limit });
        }
        if options.max_tokens.is_none() && answer == 0 {
            let what = format!(
                "the prompt has {} tokens, and the cache has room for {held} with the answer",
                ids.len()
            );
            return Err(EngineError::Invalid { field, what });
        }
        Ok((ids, answer))
    }

    fn check_ids(&self, field: &'static str, mut ids: impl Iterator<Item = u32>) -> Result<(), EngineError> {
        match ids.find(|id| *id as usize >= self.vocab_size) {
            Some(id) => {
                let what = format!("token id `{id}` is not below the vocabulary's {}", self.vocab_size);
                Err(EngineError::Invalid { field, what })
            }
            None => Ok(()),
        }
    }
}
