//! Where artifacts lie in a store.

/// `artifacts/train-attention/<fingerprint>` for the step `train:attention`.
#[must_use]
pub fn artifact_path(step: &str, fingerprint: &str) -> String {
    format!("{}/{fingerprint}", artifacts_folder(step))
}

/// The folder of all artifacts of a step.
pub(crate) fn artifacts_folder(step: &str) -> String {
    format!("artifacts/{}", step.replace(':', "-"))
}
