//! The pages: files in this program. What nodes and requesters wrote into the chain reaches the page as text and nothing else.

use crate::server::{tag_of, tagged, told};
use axum::extract::Request;
use axum::http::{header, Method, StatusCode};
use axum::response::Response;
use include_dir::{include_dir, Dir};

/// The files.
pub static FILES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/pages");

/// What a file is, by its name's end.
fn kind(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "webmanifest" => "application/manifest+json",
        _ => return None,
    })
}

/// A file by its path; any other path is a page, which the script makes out of the address.
pub async fn page(request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return told(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this server only answers questions",
        );
    }
    let path = request.uri().path().trim_start_matches('/');
    let found = FILES.get_file(path).zip(kind(path)).filter(|_| !path.is_empty());
    let (file, kind) = match found {
        Some(found) => found,
        // Something that ends like a file, and is none.
        None if path.rsplit('/').next().is_some_and(|last| last.contains('.')) => {
            return told(StatusCode::NOT_FOUND, "no_such_file", "there is no such file");
        }
        None => match FILES.get_file("index.html") {
            Some(file) => (file, "text/html; charset=utf-8"),
            None => {
                return told(StatusCode::NOT_FOUND, "no_such_file", "this program was built without pages")
            }
        },
    };
    let body = axum::body::Bytes::from_static(file.contents());
    let known = request.headers().get(header::IF_NONE_MATCH);
    tagged(known, tag_of(&body), kind, "no-cache", body)
}
