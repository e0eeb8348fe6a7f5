//! Authorization: route matching (which command a request is), grants (which commands a department may run), and path
//! confusion (path traversal, percent-encoding, dot segments, overlong UTF-8).

mod grants;
mod path_confusion;
