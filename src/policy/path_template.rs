//! Path templates: patterns for the path of a command.

use std::fmt;

/// A path template such as `/v1/snapshots/{id}`: literal segments, `{name}` for one segment, `{*name}` for the rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathTemplate(pub String);

/// The reason why a text is not a [`PathTemplate`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// The template does not start at the root of the subsystem.
    #[error("{0:?} does not start with '/'")]
    NotRooted(String),
    /// A brace at a place where none is allowed.
    #[error("{0:?}: a parameter is a whole segment, {{name}} or {{*name}}")]
    Parameter(String),
    /// More segments after `{*name}`.
    #[error("{0:?}: nothing may follow {{*name}}, because it matches the rest of the path")]
    AfterRest(String),
    /// A character that cannot occur in a request path.
    #[error("{0:?} contains {1:?}, which is not allowed in the path of a request")]
    Character(String, char),
}

/// The kind of one segment of a template.
pub(crate) enum TemplateSegment {
    /// The text itself.
    Literal,
    /// `{name}`: one segment that is not empty.
    One,
    /// `{*name}`: at least one character.
    Rest,
}

/// A path with placeholders for the parameters that another template captures. Compiled, so that filling needs no
/// lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathFilling(Vec<FillingPiece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum FillingPiece {
    Literal(String),
    /// The segment at this position.
    One(usize),
    /// The rest of the path, from the segment at this position.
    Rest(usize),
}

impl PathFilling {
    /// The path, filled with the segments of a path that the other template matches.
    pub fn fill(&self, path: &str) -> String {
        let mut filled = String::with_capacity(path.len() + LITERAL_ROOM);
        for piece in &self.0 {
            filled.push('/');
            filled.push_str(match piece {
                FillingPiece::Literal(text) => text,
                FillingPiece::One(position) => path.split('/').nth(position + 1).unwrap_or_default(),
                FillingPiece::Rest(position) => path.splitn(position + 2, '/').nth(position + 1).unwrap_or_default(),
            });
        }
        filled
    }
}

/// The capacity for the literal part of most filled paths; a longer one grows.
const LITERAL_ROOM: usize = 32;

impl PathTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// The fault in the text.
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        let rest = text.strip_prefix('/').ok_or_else(|| BadTemplate::NotRooted(text.to_owned()))?;
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#' | '\\')) {
            return Err(BadTemplate::Character(text.to_owned(), odd));
        }
        let mut ended = false;
        for part in rest.split('/') {
            if ended {
                return Err(BadTemplate::AfterRest(text.to_owned()));
            }
            let segment = segment_of(part).ok_or_else(|| BadTemplate::Parameter(text.to_owned()))?;
            ended = matches!(segment, TemplateSegment::Rest);
        }
        Ok(Self(text.to_owned()))
    }

    /// This template, filled from paths that `matched` matches.
    ///
    /// # Errors
    /// If a parameter is not captured by `matched` in the same way: not at all, or as one segment instead of the rest,
    /// or as the rest instead of one segment.
    pub fn filled_by(&self, matched: &Self) -> Result<PathFilling, String> {
        let piece = |part: &str| match segment_of(part) {
            Some(TemplateSegment::One) => matched.position_of(part).map(FillingPiece::One),
            Some(TemplateSegment::Rest) => matched.position_of(part).map(FillingPiece::Rest),
            Some(TemplateSegment::Literal) | None => Ok(FillingPiece::Literal(part.to_owned())),
        };
        self.0.split('/').skip(1).map(piece).collect::<Result<_, _>>().map(PathFilling)
    }

    /// This template as a path, for matches that capture no parameters.
    ///
    /// # Errors
    /// If the template has a parameter.
    pub fn filled_by_nothing(&self) -> Result<PathFilling, String> {
        let parameter = self.segments().find(|(_, segment)| !matches!(segment, TemplateSegment::Literal));
        match parameter {
            Some((parameter, _)) => Err(format!("{parameter} is not captured; only match.path captures parameters")),
            None => self.filled_by(self),
        }
    }

    /// Whether the template has a parameter. Without one it matches a single path.
    pub(crate) fn has_parameters(&self) -> bool {
        self.segments().any(|(_, segment)| !matches!(segment, TemplateSegment::Literal))
    }

    /// The segments, each with its text.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (&str, TemplateSegment)> {
        self.0.split('/').skip(1).map(|part| (part, segment_of(part).unwrap_or(TemplateSegment::Literal)))
    }

    /// Whether a path matches.
    pub(crate) fn fits(&self, path: &str) -> bool {
        let mut rest = path;
        for (text, segment) in self.segments() {
            let Some(below) = rest.strip_prefix('/') else { return false };
            let (part, after) = below.split_at(below.find('/').unwrap_or(below.len()));
            match segment {
                TemplateSegment::Rest => return !below.is_empty(),
                TemplateSegment::One if part.is_empty() => return false,
                TemplateSegment::Literal if part != text => return false,
                TemplateSegment::One | TemplateSegment::Literal => rest = after,
            }
        }
        rest.is_empty()
    }

    /// The position of a parameter, which is given with its braces.
    fn position_of(&self, parameter: &str) -> Result<usize, String> {
        let position = self.0.split('/').skip(1).position(|part| part == parameter);
        position.ok_or_else(|| format!("{parameter} is not captured by the path that is matched, {self}"))
    }

    /// The canonical form: parameters are named by position, so that two templates for the same paths are equal.
    pub(crate) fn normalized(&self) -> String {
        let mut shape = String::with_capacity(self.0.len());
        for (position, part) in self.0.split('/').skip(1).enumerate() {
            match segment_of(part) {
                Some(TemplateSegment::One) => shape.push_str(&format!("/{{p{position}}}")),
                Some(TemplateSegment::Rest) => shape.push_str(&format!("/{{*p{position}}}")),
                Some(TemplateSegment::Literal) | None => shape.extend(["/", part]),
            }
        }
        shape
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn segment_of(part: &str) -> Option<TemplateSegment> {
    let Some(inner) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
        return (!part.contains(['{', '}'])).then_some(TemplateSegment::Literal);
    };
    let (rest, name) = match inner.strip_prefix('*') {
        Some(name) => (true, name),
        None => (false, inner),
    };
    let named =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    match (named, rest) {
        (false, _) => None,
        (true, true) => Some(TemplateSegment::Rest),
        (true, false) => Some(TemplateSegment::One),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_is_rooted_and_its_parameters_are_whole_segments() {
        for (text, shape) in [
            ("/", Some("/")),
            ("/v1/snapshots", Some("/v1/snapshots")),
            ("/v1/snapshots/{id}", Some("/v1/snapshots/{p2}")),
            ("/v1/{camera}/{day}/", Some("/v1/{p1}/{p2}/")),
            ("/files/{*path}", Some("/files/{*p1}")),
            ("/city.Cameras/Submit", Some("/city.Cameras/Submit")),
            ("v1", None),
            ("", None),
            ("/v1/img-{id}", None),
            ("/v1/{}", None),
            ("/v1/{*}", None),
            ("/{*rest}/more", None),
            ("/a?b=c", None),
            ("/a b", None),
        ] {
            let read = PathTemplate::parse(text).ok().map(|template| template.normalized());
            assert_eq!(read.as_deref(), shape, "{text:?}");
        }
    }
}
