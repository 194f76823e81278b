//! Finds the known name that is most similar to a misspelt one.

/// Maximum letters compared: longer names are untrusted and would only cost time.
const LONGEST: usize = 64;

/// Maximum letters to insert, delete, replace or swap between two names.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let cut = |text: &str| text.chars().take(LONGEST).collect::<String>();
    strsim::osa_distance(&cut(a), &cut(b))
}

/// The known name that a misspelt one most likely means: `prod` for `prdo`, nothing for `qa`.
#[must_use]
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let known = known.into_iter();
    let (distance, found) = known.map(|known| (distance(name, known), known)).min()?;
    let shorter = name.chars().count().min(found.chars().count());
    let is_near = distance <= 1 + shorter / 4 && distance * 2 <= shorter;
    is_near.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_suggests_slips_and_nothing_else() {
        let known = || ["prod", "dev", "staging"];
        for (name, found) in [
            ("prdo", Some("prod")),
            ("stagin", Some("staging")),
            ("qa", None),
            ("x", None),
            ("", None),
            ("production", None),
        ] {
            assert_eq!(nearest(name, known()), found, "{name}");
        }
        assert_eq!(nearest("a", []), None);
    }
}
