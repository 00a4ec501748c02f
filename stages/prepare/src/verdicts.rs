//! What becomes of each row.

use std::collections::{HashMap, HashSet};

use crate::candidates::Key;
use crate::near::Near;

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It is an example.
    Kept,
    /// It is a duplicate.
    Duplicate { kind: &'static str, near: Near },
    /// It is out for another reason.
    Out { reason: String, detail: String },
}

/// Decides about every row, by position. A synthetic row goes where its parent goes.
pub(crate) fn decide(keys: &[Key], near: &HashMap<usize, Near>) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = keys.iter().enumerate().map(|(at, key)| own(at, key, near)).collect();
    let kept: HashSet<&str> =
        keys.iter().zip(&verdicts).filter(|(_, v)| **v == Verdict::Kept).map(|(k, _)| k.id.as_str()).collect();
    let orphans: Vec<(usize, String)> = keys
        .iter()
        .enumerate()
        .filter(|(at, _)| verdicts[*at] == Verdict::Kept)
        .filter_map(|(at, key)| Some((at, key.parent_id.clone().filter(|parent| !kept.contains(parent.as_str()))?)))
        .collect();
    for (at, parent) in orphans {
        let detail = format!("its parent {parent} is rejected or a duplicate");
        verdicts[at] = Verdict::Out { reason: "parent_rejected".to_owned(), detail };
    }
    verdicts
}

fn own(at: usize, key: &Key, near: &HashMap<usize, Near>) -> Verdict {
    if let Some((reason, detail)) = &key.excluded {
        return Verdict::Out { reason: reason.clone(), detail: detail.clone() };
    }
    if key.exact != at {
        let near =
            Near { neighbour: key.exact, jaccard: 1.0, kept: near.get(&key.exact).map_or(key.exact, |n| n.kept) };
        return Verdict::Duplicate { kind: "exact", near };
    }
    near.get(&at).map_or(Verdict::Kept, |near| Verdict::Duplicate { kind: "near", near: near.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_follow_their_parents() {
        let key = |id: &str, exact: usize| Key { id: id.into(), kind: "original".into(), exact, ..Key::default() };
        let child = Key { parent_id: Some("b".into()), exact: 2, ..Key::default() };
        let near = HashMap::from([(0, Near { neighbour: 3, jaccard: 0.8, kept: 3 })]);
        let verdicts = decide(&[key("a", 0), key("b", 0), child, key("c", 3)], &near);
        assert!(matches!(&verdicts[0], Verdict::Duplicate { kind: "near", .. }));
        // An exact duplicate of a near-duplicate counts to the same kept row.
        assert!(
            matches!(&verdicts[1], Verdict::Duplicate { kind: "exact", near } if near.kept == 3 && near.neighbour == 0)
        );
        assert!(matches!(&verdicts[2], Verdict::Out { reason, .. } if reason == "parent_rejected"));
        assert_eq!(verdicts[3], Verdict::Kept);
    }
}
