//! Edits of Python that keep its meaning (positives) or change it (negatives). One file an edit, one line below.

mod branches;
mod operators;
mod rename_locals;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use tree_sitter::Tree;

use crate::syntax::{Replacement, parse, replace};

/// What an edit does to the meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It stays.
    Kept,
    /// It changes.
    Changed,
}

/// An edit.
pub struct Edit {
    /// Its name, as it stands in `synthetic_pairs.edit`.
    pub name: &'static str,
    /// What it does to the meaning.
    pub meaning: Meaning,
    /// The places where it can be made, each with the replacements it takes.
    sites: fn(&str, &Tree) -> Vec<Vec<Replacement>>,
}

const fn kept(name: &'static str, sites: fn(&str, &Tree) -> Vec<Vec<Replacement>>) -> Edit {
    Edit { name, meaning: Meaning::Kept, sites }
}
const fn changed(name: &'static str, sites: fn(&str, &Tree) -> Vec<Vec<Replacement>>) -> Edit {
    Edit { name, meaning: Meaning::Changed, sites }
}

/// All edits.
pub const EDITS: &[Edit] = &[
    kept("rename_locals", rename_locals::sites),
    kept("invert_if", branches::inverted),
    changed("swap_branches", branches::swapped),
    changed("negate_condition", branches::negated),
    changed("flip_comparison", operators::comparisons),
    changed("flip_arithmetic", operators::arithmetic),
    changed("negate_return", branches::negated_returns),
];

/// An edited source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The edit's name.
    pub edit: &'static str,
    /// The new source.
    pub code: String,
}

/// Makes one edit among those that fit, chosen by `seed`; none where none fits or the source is no valid Python.
#[must_use]
pub fn edit(source: &str, meaning: Meaning, seed: u64) -> Option<Edited> {
    let tree = parse(source).ok()?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut edits: Vec<&Edit> = EDITS.iter().filter(|edit| edit.meaning == meaning).collect();
    edits.shuffle(&mut random);
    edits.into_iter().find_map(|edit| {
        let mut sites = (edit.sites)(source, &tree);
        sites.shuffle(&mut random);
        let code = replace(source, sites.into_iter().next()?);
        (code != source && parse(&code).is_ok()).then_some(Edited { edit: edit.name, code })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOURCE: &str = "def f(a, b):\n    total = a + b\n    if total > b:\n        out = total\n    else:\n        out = -b\n    return out\n";

    /// All ways an edit can be made.
    fn all(source: &str, name: &str) -> Vec<String> {
        let edit = EDITS.iter().find(|e| e.name == name).unwrap();
        let tree = parse(source).unwrap();
        (edit.sites)(source, &tree).into_iter().map(|site| replace(source, site)).collect()
    }

    #[test]
    fn edits_do_what_their_names_say() {
        assert_eq!(
            all(SOURCE, "invert_if"),
            [SOURCE
                .replace("total > b:", "not (total > b):")
                .replace("out = total\n", "out = X\n")
                .replace("out = -b", "out = total")
                .replace("out = X", "out = -b")]
        );
        assert_eq!(all(SOURCE, "flip_comparison"), [SOURCE.replace('>', "<=")]);
        assert_eq!(all(SOURCE, "flip_arithmetic"), [SOURCE.replace("a + b", "a - b")]);
        assert_eq!(all(SOURCE, "negate_condition"), [SOURCE.replace("total > b:", "not (total > b):")]);
        let renamed = all(SOURCE, "rename_locals");
        assert_eq!(renamed.len(), 1);
        assert!(!renamed[0].contains("total") && !renamed[0].contains("out") && renamed[0].contains("def f(a, b)"));
    }

    #[test]
    fn names_that_others_see_are_never_renamed() {
        for source in [
            "def f(x):\n    return g(x=x)\n",
            "def f():\n    global x\n    x = 1\n",
            "def f():\n    x = 1\n    return locals()\n",
            "def f():\n    x = 1\n    return f'{x=}'\n",
            "def f():\n    class C:\n        x = 1\n    return C.x\n",
            "def f():\n    def g():\n        x = 1\n    return x\n",
            "def f():\n    import x\n    return x\n",
            "def f():\n    return [x for x in y]\n",
            "def f():\n    x = 1\n    return lambda x: x\n",
        ] {
            assert_eq!(all(source, "rename_locals"), [""; 0], "{source}");
        }
        let attribute = "def f(o):\n    x = o.x\n    return g(x=x)\n";
        let renamed = all(attribute, "rename_locals").remove(0);
        assert!(renamed.contains("= o.x") && renamed.contains("g(x=") && !renamed.contains("=x)"), "{renamed}");
    }

    proptest! {
        #[test]
        fn edits_are_valid_python_and_repeatable(seed: u64) {
            for meaning in [Meaning::Kept, Meaning::Changed] {
                let one = edit(SOURCE, meaning, seed).unwrap();
                prop_assert_ne!(&one.code, SOURCE);
                prop_assert!(crate::Language::Python.check(&one.code).is_ok());
                prop_assert_eq!(Some(one), edit(SOURCE, meaning, seed));
            }
        }
    }
}
