//! One HTTP transport below every store: TLS by the store's own CA, addresses checked at each connection,
//! deadlines, a cap on bodies, no redirects, no proxies, buffers of ours wiped.
//!
//! It knows HTTP and nothing of any store: a status code is handed on as a number, never judged here.
