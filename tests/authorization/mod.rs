//! Which command a request is, and whether its department may run it.

mod grants;
mod path_confusion;
