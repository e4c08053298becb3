//! The tokenizer inside a GGUF file.
//!
//! A file names the kind of its tokenizer (`tokenizer.ggml.model`) and, for byte-level BPE, how text is split before
//! (`tokenizer.ggml.pre`). Both decide which tokens a text becomes, so a name that is not known here is refused: another rule
//! gives other tokens and quietly worse answers. The patterns are those of the models' own `tokenizer.json`; llama.cpp's
//! `llama-vocab.cpp` says which name stands for which.

use super::gguf_header::Header;
use std::collections::{BTreeSet, HashMap};
use tokenizers::{
    decoders::{byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders, strip::Strip},
    models::bpe::{Vocab, BPE},
    normalizers::{Prepend, Replace, Sequence as Normalizers, NFC},
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
};

type Result<T> = std::result::Result<T, String>;

/// What a space is in a SentencePiece vocabulary.
const SPACE: &str = "\u{2581}";

/// What a token is for (`llama_token_type`).
mod token_type {
    pub(super) const UNKNOWN: i64 = 2;
    pub(super) const CONTROL: i64 = 3;
    pub(super) const USER_DEFINED: i64 = 4;
    pub(super) const UNUSED: i64 = 5;
    pub(super) const BYTE: i64 = 6;
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: [&str; 3] = [
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];

/// How a byte-level tokenizer splits text.
enum Splitting {
    /// By a pattern.
    Pattern(&'static str),
    /// By several, each within what the ones before left.
    Patterns(&'static [&'static str]),
    /// Every digit by itself, then as GPT-2.
    DigitsAndGpt2,
}

/// What a name in `tokenizer.ggml.pre` stands for.
struct Pre {
    splitting: Splitting,
    /// Composed characters before anything else.
    nfc: bool,
    /// Whether a piece that is a token as it is becomes that token, whatever merges say.
    ignore_merges: bool,
}

fn pre(name: &str) -> Option<Pre> {
    let of = |splitting| Pre { splitting, nfc: false, ignore_merges: false };
    Some(match name {
        "gpt-2" | "gpt2" | "mpt" | "olmo" | "jais" | "phi-2" => of(Splitting::Pattern(GPT2)),
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "lfm2" => {
            Pre { ignore_merges: true, ..of(Splitting::Pattern(LLAMA3)) }
        }
        // Phi-4 says dbrx.
        "dbrx" | "smaug-bpe" => of(Splitting::Pattern(LLAMA3)),
        "qwen2" | "deepseek-r1-qwen" => Pre { nfc: true, ..of(Splitting::Pattern(QWEN2)) },
        "stablelm2" => of(Splitting::Pattern(QWEN2)),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
            of(Splitting::DigitsAndGpt2)
        }
        "tekken" => Pre { ignore_merges: true, ..of(Splitting::Pattern(TEKKEN)) },
        "gpt-4o" | "llama4" => of(Splitting::Pattern(GPT4O)),
        "deepseek-v3" => of(Splitting::Patterns(&DEEPSEEK3)),
        _ => return None,
    })
}

/// The names that [`pre`] knows, for messages.
const KNOWN_PRE: &str = "llama-bpe, llama3, qwen2, smollm, gpt-2, tekken, gpt-4o, dbrx, deepseek-v3, deepseek-r1-qwen, stablelm2, starcoder, refact, command-r and their like";

/// A tokenizer with what its file says belongs to it.
pub(super) struct GgufTokenizer {
    pub(super) tokenizer: Tokenizer,
    /// Put in front of a prompt, where the file says so.
    pub(super) bos: Option<u32>,
}

/// A token's number. −1, as some converters write for none, is none.
pub(super) fn id(gguf: &Header, key: &str) -> Option<u32> {
    gguf.whole(key).and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX)
}

/// The tokenizer of a file.
///
/// # Errors
/// When the file has none, or one of a kind that would be split otherwise here.
pub(super) fn load(gguf: &Header) -> Result<GgufTokenizer> {
    let model = gguf.text("tokenizer.ggml.model").ok_or("the file has no `tokenizer.ggml.model`")?;
    let tokens = gguf.texts("tokenizer.ggml.tokens")?;
    let vocab: Vocab = tokens.iter().enumerate().map(|(i, token)| (token.clone(), i as u32)).collect();
    let types = match gguf.has("tokenizer.ggml.token_type") {
        true => gguf.wholes("tokenizer.ggml.token_type")?,
        false => Vec::new(),
    };
    if !types.is_empty() && types.len() != tokens.len() {
        return Err(format!("it has {} tokens and {} types of tokens", tokens.len(), types.len()));
    }
    let add_space = gguf.truth("tokenizer.ggml.add_space_prefix");
    let mut tokenizer = match model {
        "gpt2" => byte_level(gguf, vocab, add_space)?,
        "llama" => sentence_piece(gguf, &tokens, &types, vocab, add_space)?,
        other => {
            return Err(format!(
                "`tokenizer.ggml.model` is `{other}`; supported are gpt2 (byte-level BPE) and llama (SentencePiece BPE): put the \
                 model's own tokenizer.json beside the file"
            ))
        }
    };
    add_tokens(gguf, &mut tokenizer, &tokens, &types)?;
    // llama.cpp's defaults where a file does not say.
    let default_bos = match gguf.text("tokenizer.ggml.pre") {
        _ if model == "llama" => true,
        Some(name) => matches!(name, "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "lfm2" | "tekken"),
        None => false,
    };
    let add_bos = gguf.truth("tokenizer.ggml.add_bos_token").unwrap_or(default_bos);
    let bos = id(gguf, "tokenizer.ggml.bos_token_id").filter(|_| add_bos);
    Ok(GgufTokenizer { tokenizer, bos })
}

fn byte_level(gguf: &Header, vocab: Vocab, add_space: Option<bool>) -> Result<Tokenizer> {
    let name = gguf.text("tokenizer.ggml.pre").ok_or_else(|| {
        format!(
            "the file does not say how text is split (`tokenizer.ggml.pre`): convert the model anew, or put its own \
             tokenizer.json beside the file; known are {KNOWN_PRE}"
        )
    })?;
    let pre = pre(name).ok_or_else(|| {
        format!(
            "`tokenizer.ggml.pre` is `{name}`, which is not supported: put the model's own tokenizer.json beside the file; \
             known are {KNOWN_PRE}"
        )
    })?;
    let merges = gguf
        .texts("tokenizer.ggml.merges")?
        .iter()
        .map(|merge| {
            merge
                .split_once(' ')
                .map(|(a, b)| (a.to_string(), b.to_string()))
                .ok_or_else(|| format!("`{merge}` is no merge of two tokens"))
        })
        .collect::<Result<Vec<_>>>()?;
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(pre.ignore_merges)
        .build()
        .map_err(|e| e.to_string())?;
    let mut tokenizer = Tokenizer::new(bpe);
    if pre.nfc {
        tokenizer.with_normalizer(Some(NFC)).map_err(|e| e.to_string())?;
    }
    let split = |pattern: &str| -> Result<PreTokenizerWrapper> {
        let pattern = SplitPattern::Regex(pattern.to_string());
        let split =
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(|e| e.to_string())?;
        Ok(split.into())
    };
    let prefix = add_space.unwrap_or(false);
    let mut steps: Vec<PreTokenizerWrapper> = match pre.splitting {
        Splitting::Pattern(pattern) => vec![split(pattern)?],
        Splitting::Patterns(patterns) => patterns.iter().map(|p| split(p)).collect::<Result<_>>()?,
        Splitting::DigitsAndGpt2 => vec![Digits::new(true).into()],
    };
    let own_pattern = matches!(pre.splitting, Splitting::DigitsAndGpt2);
    steps.push(ByteLevel::new(prefix, true, own_pattern).into());
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
    tokenizer.with_decoder(Some(ByteLevel::new(prefix, true, false)));
    Ok(tokenizer)
}

/// SentencePiece's BPE, as `transformers` converts it: pieces with scores become merges in the order of their scores.
fn sentence_piece(
    gguf: &Header,
    tokens: &[String],
    types: &[i64],
    vocab: Vocab,
    add_space: Option<bool>,
) -> Result<Tokenizer> {
    if gguf.truth("tokenizer.ggml.remove_extra_whitespaces") == Some(true) {
        return Err(
            "it drops extra spaces (`tokenizer.ggml.remove_extra_whitespaces`), which is not supported"
                .into(),
        );
    }
    if gguf.has("tokenizer.ggml.precompiled_charsmap") {
        return Err(
            "it normalises text by a table (`tokenizer.ggml.precompiled_charsmap`), which is not supported"
                .into(),
        );
    }
    let scores = gguf.floats("tokenizer.ggml.scores")?;
    if scores.len() != tokens.len() || types.len() != tokens.len() {
        return Err(format!(
            "it has {} tokens, {} scores and {} types of tokens",
            tokens.len(),
            scores.len(),
            types.len()
        ));
    }
    let of_type = |kind: i64| (0..tokens.len()).filter(move |i| types[*i] == kind);
    let bytes: BTreeSet<&str> = of_type(token_type::BYTE).map(|i| tokens[i].as_str()).collect();
    let byte_fallback = (0..=255u8).all(|byte| bytes.contains(format!("<0x{byte:02X}>").as_str()));
    let unknown = id(gguf, "tokenizer.ggml.unknown_token_id")
        .map(|id| id as usize)
        .or_else(|| of_type(token_type::UNKNOWN).next())
        .and_then(|i| tokens.get(i))
        .cloned();
    if !byte_fallback && unknown.is_none() {
        return Err("it has neither all bytes nor an unknown token: some texts could not be told".into());
    }
    let merges = merges(tokens, types, &scores);
    let mut builder =
        BPE::builder().vocab_and_merges(vocab, merges).byte_fallback(byte_fallback).fuse_unk(true);
    if let Some(unknown) = unknown {
        builder = builder.unk_token(unknown);
    }
    let mut tokenizer = Tokenizer::new(builder.build().map_err(|e| e.to_string())?);
    let add_space = add_space.unwrap_or(true);
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if add_space {
        normalizers.push(Prepend::new(SPACE.to_string()).into());
    }
    normalizers.push(Replace::new(" ", SPACE).map_err(|e| e.to_string())?.into());
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).map_err(|e| e.to_string())?;
    let mut decoders: Vec<DecoderWrapper> = vec![
        Replace::new(SPACE, " ").map_err(|e| e.to_string())?.into(),
        ByteFallback::new().into(),
        Fuse::new().into(),
    ];
    if add_space {
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    tokenizer.with_decoder(Some(Decoders::new(decoders)));
    Ok(tokenizer)
}

/// All ways of making a piece of two others, the likelier piece first (`generate_merges` of `transformers`).
fn merges(tokens: &[String], types: &[i64], scores: &[f64]) -> Vec<(String, String)> {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(i, t)| (t.as_str(), i)).collect();
    let skipped = |i: usize| {
        matches!(types[i], token_type::CONTROL | token_type::UNKNOWN | token_type::BYTE | token_type::UNUSED)
    };
    let mut all: Vec<(f64, usize, usize, &str, &str)> = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        if skipped(i) || ids.get(token.as_str()) != Some(&i) {
            continue;
        }
        let mut own: Vec<(usize, usize, usize)> = Vec::new();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(l), Some(r)) = (ids.get(left), ids.get(right)) {
                if !skipped(*l) && !skipped(*r) {
                    own.push((*l, *r, at));
                }
            }
        }
        own.sort_by_key(|(l, r, _)| (*l, *r));
        for (_, _, at) in own {
            let (left, right) = token.split_at(at);
            all.push((scores[i], left.chars().count(), right.chars().count(), left, right));
        }
    }
    // Stable, as Python's is.
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then((b.1, b.2).cmp(&(a.1, a.2))));
    all.into_iter().map(|(_, _, _, left, right)| (left.to_string(), right.to_string())).collect()
}

/// Control tokens, and tokens that users defined.
fn add_tokens(gguf: &Header, tokenizer: &mut Tokenizer, tokens: &[String], types: &[i64]) -> Result<()> {
    let mut special: BTreeSet<usize> =
        (0..types.len()).filter(|i| matches!(types[*i], token_type::CONTROL | token_type::UNKNOWN)).collect();
    for name in ["bos", "eos", "eot", "eom", "padding", "separator", "unknown", "mask", "cls"] {
        special.extend(id(gguf, &format!("tokenizer.ggml.{name}_token_id")).map(|id| id as usize));
    }
    let added = |i: usize, special: bool| {
        tokens
            .get(i)
            .filter(|token| !token.is_empty())
            .map(|t| AddedToken::from(t.clone(), special).normalized(false))
    };
    // In the order of their numbers, as those that are in the vocabulary keep them.
    let special: Vec<_> = special.into_iter().filter_map(|i| added(i, true)).collect();
    tokenizer.add_special_tokens(special).map_err(|e| e.to_string())?;
    let defined = (0..types.len()).filter(|i| types[*i] == token_type::USER_DEFINED);
    let defined: Vec<_> = defined.filter_map(|i| added(i, false)).collect();
    tokenizer.add_tokens(defined).map_err(|e| e.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::gguf_file::Value;

    fn content(pairs: Vec<(&str, Value)>) -> Header {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let metadata: Vec<_> = pairs.iter().map(|(key, value)| (*key, value)).collect();
        candle_core::quantized::gguf_file::write(&mut bytes, &metadata, &[]).unwrap();
        Header::read(&mut bytes).unwrap()
    }

    fn texts(values: &[&str]) -> Value {
        Value::Array(values.iter().map(|v| Value::String(v.to_string())).collect())
    }

    fn byte_level_with(pre: Option<&str>) -> Result<GgufTokenizer> {
        let tokens: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
        let mut tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        tokens.sort_unstable();
        tokens.extend(["12", "123", "Ġa", "<|x|>"]);
        let mut types = vec![Value::I32(1); tokens.len()];
        if let Some(last) = types.last_mut() {
            *last = Value::I32(3);
        }
        let mut pairs = vec![
            ("tokenizer.ggml.model", Value::String("gpt2".into())),
            ("tokenizer.ggml.tokens", texts(&tokens)),
            ("tokenizer.ggml.merges", texts(&["1 2", "12 3", "Ġ a"])),
            ("tokenizer.ggml.token_type", Value::Array(types)),
        ];
        if let Some(pre) = pre {
            pairs.push(("tokenizer.ggml.pre", Value::String(pre.into())));
        }
        load(&content(pairs))
    }

    fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        tokenizer.encode(text, false).unwrap().get_tokens().to_vec()
    }

    #[test]
    fn a_splitting_that_is_not_known_is_refused_by_name() {
        for unknown in ["nonsense", "default", "", "chatglm-bpe", "llama-spm"] {
            let error = byte_level_with(Some(unknown)).err().unwrap();
            assert!(error.contains(&format!("`{unknown}`")) && error.contains("tokenizer.json"), "{error}");
        }
        let error = byte_level_with(None).err().unwrap();
        assert!(error.contains("tokenizer.ggml.pre") && error.contains("llama-bpe"), "{error}");
        let error = load(&content(vec![
            ("tokenizer.ggml.model", Value::String("rwkv".into())),
            ("tokenizer.ggml.tokens", texts(&["a"])),
        ]));
        assert!(error.err().unwrap().contains("`rwkv`"));
    }

    #[test]
    fn splittings_are_those_of_their_models() {
        let of = |pre: &str| byte_level_with(Some(pre)).unwrap_or_else(|e| panic!("{e}"));
        // Three digits, one digit, all digits: and nobody puts a space in front.
        assert_eq!(pieces(&of("llama-bpe").tokenizer, "1234 a"), ["123", "4", "Ġa"]);
        assert_eq!(pieces(&of("qwen2").tokenizer, "123 a"), ["1", "2", "3", "Ġa"]);
        assert_eq!(pieces(&of("smollm").tokenizer, "123 a"), ["1", "2", "3", "Ġa"]);
        assert_eq!(pieces(&of("gpt-2").tokenizer, "123 a"), ["123", "Ġa"]);
        // Every name that is listed is known; a control token is one token, and text round-trips.
        for name in [
            "tekken",
            "gpt-4o",
            "dbrx",
            "deepseek-v3",
            "deepseek-r1-qwen",
            "stablelm2",
            "starcoder",
            "refact",
            "command-r",
        ] {
            let found = of(name);
            let text = "Hello'S wörld 12 a\n\n  x <|x|>! 日本。";
            let encoding = found.tokenizer.encode(text, false).unwrap();
            assert!(encoding.get_tokens().contains(&"<|x|>".to_string()), "{name}");
            assert_eq!(found.tokenizer.decode(encoding.get_ids(), false).unwrap(), text, "{name}");
        }
    }

    #[test]
    fn sentence_pieces_are_merged_by_score_and_bytes_are_the_last_resort() {
        let mut tokens = vec!["<unk>".to_string(), "<s>".into(), "</s>".into()];
        let mut types = vec![2, 3, 3];
        tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
        types.extend([6; 256]);
        let mut scores = vec![0f32; tokens.len()];
        for (i, piece) in ["▁", "a", "b", "c", "ab", "bc", "▁a", "abc", "▁ab"].iter().enumerate() {
            tokens.push(piece.to_string());
            types.push(1);
            scores.push(match *piece {
                "bc" => -1.0,
                "abc" => -2.0,
                "▁a" => -3.0,
                "ab" => -4.0,
                "▁ab" => -5.0,
                _ => -100.0 - i as f32,
            });
        }
        let pairs = |extra: Vec<(&'static str, Value)>| {
            let mut pairs = vec![
                ("tokenizer.ggml.model", Value::String("llama".into())),
                ("tokenizer.ggml.tokens", texts(&tokens.iter().map(String::as_str).collect::<Vec<_>>())),
                ("tokenizer.ggml.scores", Value::Array(scores.iter().map(|s| Value::F32(*s)).collect())),
                ("tokenizer.ggml.token_type", Value::Array(types.iter().map(|t| Value::I32(*t)).collect())),
                ("tokenizer.ggml.bos_token_id", Value::U32(1)),
            ];
            pairs.extend(extra);
            content(pairs)
        };
        let found = load(&pairs(vec![])).unwrap();
        assert_eq!(found.bos, Some(1));
        assert_eq!(pieces(&found.tokenizer, "abc ab"), ["▁", "abc", "▁ab"]);
        assert_eq!(pieces(&found.tokenizer, "é"), ["▁", "<0xC3>", "<0xA9>"]);
        let ids = found.tokenizer.encode("abc é</s>", false).unwrap();
        assert_eq!(found.tokenizer.decode(ids.get_ids(), true).unwrap(), "abc é");
        // As Gemma has it.
        let bare = load(&pairs(vec![
            ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
            ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ]))
        .unwrap();
        assert_eq!((bare.bos, pieces(&bare.tokenizer, "abc")), (None, vec!["abc".to_string()]));
        let error = load(&pairs(vec![("tokenizer.ggml.remove_extra_whitespaces", Value::Bool(true))]));
        assert!(error.err().unwrap().contains("remove_extra_whitespaces"));
    }
}
