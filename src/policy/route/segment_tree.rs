//! Path templates with parameters as a tree of segments, whose candidates are found in the order of their precedence.
//!
//! Guarantees:
//! - At each segment a literal comes before `{name}`, and `{name}` before `{*name}`: the order of matchit.
//! - If no candidate of a template is taken, those of the next less specific template follow. matchit has only the most
//!   specific one.
//! - A lookup visits each node of the tree at most once, and allocates nothing.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::policy::path_template::{PathTemplate, TemplateSegment};

use super::path_table::{CandidateList, MatchCandidate};

/// The templates. The first node is the root.
#[derive(Debug)]
pub(super) struct SegmentTree {
    nodes: Vec<TreeNode>,
}

#[derive(Debug, Default)]
struct TreeNode {
    literals: HashMap<String, usize, RandomState>,
    /// The node below `{name}`.
    one: Option<usize>,
    /// The candidates of templates that end here.
    here: CandidateList,
    /// The candidates of templates that end with `{*name}` here.
    rest: CandidateList,
}

impl Default for SegmentTree {
    fn default() -> Self {
        Self { nodes: vec![TreeNode::default()] }
    }
}

impl SegmentTree {
    pub(super) fn insert(&mut self, template: &PathTemplate, candidate: MatchCandidate) {
        let mut node = 0;
        for (text, segment) in template.segments() {
            node = match segment {
                TemplateSegment::Rest => return self.nodes[node].rest.push(candidate),
                TemplateSegment::One => match self.nodes[node].one {
                    Some(next) => next,
                    None => {
                        let next = self.add_node();
                        *self.nodes[node].one.insert(next)
                    }
                },
                TemplateSegment::Literal => match self.nodes[node].literals.get(text) {
                    Some(next) => *next,
                    None => {
                        let next = self.add_node();
                        self.nodes[node].literals.insert(text.to_owned(), next);
                        next
                    }
                },
            };
        }
        self.nodes[node].here.push(candidate);
    }

    fn add_node(&mut self) -> usize {
        self.nodes.push(TreeNode::default());
        self.nodes.len() - 1
    }

    pub(super) fn lists_mut(&mut self) -> impl Iterator<Item = &mut CandidateList> {
        self.nodes.iter_mut().flat_map(|node| [&mut node.here, &mut node.rest])
    }

    /// The first candidate at a path that `take` accepts.
    pub(super) fn first_taken<'t>(
        &'t self,
        path: &str,
        take: &mut impl FnMut(&'t MatchCandidate) -> bool,
    ) -> Option<&'t MatchCandidate> {
        self.first_below(&self.nodes[0], path, take)
    }

    /// As `first_taken`, below a node. `path` is empty or starts with `/`. The depth is bounded by that of the tree.
    fn first_below<'t>(
        &'t self,
        node: &'t TreeNode,
        path: &str,
        take: &mut impl FnMut(&'t MatchCandidate) -> bool,
    ) -> Option<&'t MatchCandidate> {
        let Some(rest) = path.strip_prefix('/') else { return node.here.iter().find(|candidate| take(candidate)) };
        let (segment, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let literal = node.literals.get(segment).and_then(|next| self.first_below(&self.nodes[*next], after, take));
        if literal.is_some() {
            return literal;
        }
        let one = node.one.filter(|_| !segment.is_empty());
        if let Some(found) = one.and_then(|next| self.first_below(&self.nodes[next], after, take)) {
            return Some(found);
        }
        if rest.is_empty() { None } else { node.rest.iter().find(|candidate| take(candidate)) }
    }
}
