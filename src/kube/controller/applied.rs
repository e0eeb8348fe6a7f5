//! Applying translations to the data plane, on a thread where waiting harms nobody.
//!
//! Guarantees:
//! - At most one configuration is being applied. The newest one that waits is next; older ones that wait are dropped.
//! - A translation that gives the same documents and texts is not applied again.
//!
//! Leaves to others: what is applied (`translate`).

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use super::controller_gauge::ControllerGauge;
use super::data_plane::{AppliedConfig, DataPlane};
use crate::kube::translate::Translation;
use crate::model::hex_text;

/// The bytes of a version.
const VERSION_BYTES: usize = 8;

/// A translation with what became of its configuration.
#[derive(Debug, Default)]
pub(super) struct AppliedTranslation {
    pub(super) translation: Arc<Translation>,
    pub(super) config: AppliedConfig,
}

/// The way to the data plane.
pub(super) struct Applier {
    waiting: watch::Sender<Option<Arc<Translation>>>,
    /// The last translation that was applied; `None` before the first.
    pub(super) applied: watch::Receiver<Option<Arc<AppliedTranslation>>>,
}

impl Applier {
    /// Starts the task that applies. It ends when this is dropped.
    pub(super) fn start(data_plane: Arc<dyn DataPlane>, gauge: Arc<ControllerGauge>) -> Self {
        let (waiting, mut newest) = watch::channel(None::<Arc<Translation>>);
        let (done, applied) = watch::channel(None);
        tokio::spawn(async move {
            let mut last: Option<(String, AppliedConfig)> = None;
            while newest.changed().await.is_ok() {
                let Some(translation) = newest.borrow_and_update().clone() else { continue };
                let (plane, before, begun) = (Arc::clone(&data_plane), last.take(), Instant::now());
                let work = tokio::task::spawn_blocking(move || {
                    let now = apply(&*plane, &translation, before);
                    (translation, now)
                });
                let Ok((translation, (version, config))) = work.await else { return };
                gauge.note_applied(config.rejected.is_none(), begun.elapsed());
                last = Some((version, config.clone()));
                done.send_replace(Some(Arc::new(AppliedTranslation { translation, config })));
            }
        });
        Self { waiting, applied }
    }

    /// Hands a translation over. Waits for nothing.
    pub(super) fn submit(&self, translation: Translation) {
        self.waiting.send_replace(Some(Arc::new(translation)));
    }
}

fn apply(
    data_plane: &dyn DataPlane,
    translation: &Translation,
    before: Option<(String, AppliedConfig)>,
) -> (String, AppliedConfig) {
    let version = version_of(translation);
    if let Some((known, config)) = before
        && known == version
        && config.rejected.is_none()
    {
        return (known, config);
    }
    let result = data_plane.apply(&version, &translation.documents, &translation.texts);
    let (excluded, rejected) = match result {
        Ok(excluded) => (excluded, None),
        Err(problems) => (Vec::new(), Some(format!("the configuration was rejected: {problems}"))),
    };
    if rejected.is_none() {
        data_plane.set_ready();
    }
    (version, AppliedConfig { excluded, rejected, live_listeners: data_plane.live_listeners() })
}

/// A text that differs whenever documents or texts differ.
pub(super) fn version_of(translation: &Translation) -> String {
    let mut digest = Sha256::new();
    translation.documents.iter().for_each(|document| digest.update(document.digest()));
    for (name, text) in &translation.texts.0 {
        digest.update(name);
        digest.update([0]);
        digest.update(text);
        digest.update([0]);
    }
    hex_text(&digest.finalize()[..VERSION_BYTES])
}
