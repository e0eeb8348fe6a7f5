//! `headers` and `rewrite`: what is done to a command on its way.

use http::HeaderValue;

use crate::config::document::{Command, HeaderEdits, Headers, Rewrite as RewriteDocument};
use crate::config::leaf;
use crate::policy::{FieldEdits, PathTemplate, Rewrite, Shape};

use super::place::Place;

/// What a subsystem says for all its commands.
#[derive(Clone, Debug, Default)]
pub(super) struct Common {
    request: FieldEdits,
    response: FieldEdits,
}

/// What a subsystem says for all its commands.
pub(super) fn common(headers: Option<&Headers>, place: &Place<'_>) -> Common {
    let mut common = Common::default();
    common.add(headers, &place.key("headers"));
    common
}

/// The shape of a command of this subsystem, whose path is `matched`.
pub(super) fn compile(
    written: &Command,
    matched: Option<&PathTemplate>,
    common: &Common,
    place: &Place<'_>,
) -> Option<Box<Shape>> {
    let mut own = common.clone();
    own.add(written.headers.as_ref(), &place.key("headers"));
    let rewrite = written.rewrite.as_ref().and_then(|written| rewrite(written, matched, &place.key("rewrite")));
    own.shape(rewrite)
}

impl Common {
    /// The shape of commands that say nothing themselves.
    pub(super) fn shape(self, rewrite: Option<Rewrite>) -> Option<Box<Shape>> {
        let Self { request, response } = self;
        let is_shaped = rewrite.is_some() || !request.is_empty() || !response.is_empty();
        is_shaped.then(|| Box::new(Shape { request, response, rewrite }))
    }

    fn add(&mut self, headers: Option<&Headers>, place: &Place<'_>) {
        let Some(headers) = headers else { return };
        add(&mut self.request, headers.request.as_ref(), &place.key("request"));
        add(&mut self.response, headers.response.as_ref(), &place.key("response"));
    }
}

fn add(edits: &mut FieldEdits, written: Option<&HeaderEdits>, place: &Place<'_>) {
    let Some(HeaderEdits { set, remove }) = written else { return };
    if set.len() > FieldEdits::MAX || remove.len() > FieldEdits::MAX {
        place.problem(format!("at most {} fields can be set and as many removed", FieldEdits::MAX));
    }
    let mut named = Vec::new();
    for (name, value) in set {
        let place = place.key("set").key(name);
        let (Some(field), Some(value)) = (place.read(FieldEdits::name(name)), place.read(field_value(value))) else {
            continue;
        };
        if named.contains(&field) {
            place.problem(format!("{field} is set twice"));
        }
        named.push(field.clone());
        edits.set(field, value);
    }
    for (index, name) in remove.iter().enumerate() {
        let place = place.key("remove").item(index);
        let Some(field) = place.read(FieldEdits::name(name)) else { continue };
        if named.contains(&field) {
            place.problem_with_hint(format!("{field} is named twice here"), "a field that is set needs not be removed");
        }
        named.push(field.clone());
        edits.remove(field);
    }
}

fn field_value(text: &str) -> Result<HeaderValue, String> {
    let plain = text.trim() == text && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let value = plain.then(|| HeaderValue::from_str(text).ok()).flatten();
    value.ok_or_else(|| format!("{text:?} is not a value; write printable ASCII without blanks around it"))
}

fn rewrite(written: &RewriteDocument, matched: Option<&PathTemplate>, place: &Place<'_>) -> Option<Rewrite> {
    match (&written.path, &written.prefix) {
        (Some(path), None) => {
            let place = place.key("path");
            let path = place.read(leaf::template(path))?;
            place.read(Rewrite::to(&path, matched?))
        }
        (None, Some(prefix)) => place.key("prefix").read(leaf::prefix(prefix)).map(Rewrite::Prefix),
        _ => place.absent("needs a path or a prefix, and only one of them"),
    }
}
