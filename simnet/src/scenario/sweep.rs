//! Many scenarios from one: every combination of the values given for settings.

use std::fmt;

/// Another value for a key of a scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The key, with dots between tables; numbers name places in lists.
    pub key: String,
    /// Its value.
    pub value: toml::Value,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--set {}={}", self.key, self.value)
    }
}

impl Setting {
    /// Reads `key=v1,v2`: one setting for each value. What is no number, truth value, text in
    /// quotes, list or table is text.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        let (key, values) = text
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
            .ok_or_else(|| format!("--set {text}: it must be key=value or key=v1,v2"))?;
        let values: Vec<toml::Value> = split(values).into_iter().map(value).collect();
        if values.is_empty() {
            return Err(format!("--set {text}: no value"));
        }
        let key = key.trim().to_owned();
        Ok(values.into_iter().map(|value| Self { key: key.clone(), value }).collect())
    }
}

/// Splits at commas that are not inside brackets or quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut start) = (0_i32, false, 0);
    let mut parts = Vec::new();
    for (at, letter) in text.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn value(text: &str) -> toml::Value {
    let parsed = toml::from_str::<toml::Table>(&format!("v = {text}"));
    parsed
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

/// One run of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// What is different.
    pub settings: Vec<Setting>,
    /// The seed, if not the scenario's.
    pub seed: Option<u64>,
}

/// Every combination of `settings` with each of `seeds`, the last changing first.
pub fn variants(settings: &[Vec<Setting>], seeds: &[u64]) -> Vec<Variant> {
    let mut combinations = vec![Vec::new()];
    for choices in settings {
        combinations = combinations
            .iter()
            .flat_map(|before: &Vec<Setting>| {
                choices
                    .iter()
                    .map(move |choice| [before.as_slice(), std::slice::from_ref(choice)].concat())
            })
            .collect();
    }
    let mut variants = Vec::new();
    for settings in combinations {
        if seeds.is_empty() {
            variants.push(Variant { settings: settings.clone(), seed: None });
        }
        let seeded = |seed: &u64| Variant { settings: settings.clone(), seed: Some(*seed) };
        variants.extend(seeds.iter().map(seeded));
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbers_lists_or_text() {
        let parsed = Setting::parse("a.b=1,2.5,[3, 4],uniform,\"x,y\"").unwrap();
        let values: Vec<String> = parsed.iter().map(|setting| setting.value.to_string()).collect();
        assert_eq!(values, ["1", "2.5", "[3, 4]", "\"uniform\"", "\"x,y\""]);
        assert!(Setting::parse("nothing").is_err());
        assert!(Setting::parse("a=").is_err());
    }

    #[test]
    fn a_sweep_is_every_combination() {
        let settings = ["a=1,2", "b=3,4,5"].map(|text| Setting::parse(text).unwrap());
        let variants = variants(&settings, &[7, 8]);
        assert_eq!(variants.len(), 12);
        let texts: Vec<String> =
            variants[3].settings.iter().map(|setting| setting.to_string()).collect();
        assert_eq!(texts, ["--set a=1", "--set b=4"]);
        assert_eq!(variants[3].seed, Some(8));
    }
}
