//! Stores of tests that do something about some calls and pass the others to another store.

/// Methods of `Store` that pass each call to the store in a field; for use in an `impl Store`.
///
/// ```text
/// impl Store for Slow {
///     forward_store!(inner: describe stat read_pinned list share delete);
///     fn put(…) { … }
/// }
/// ```
#[macro_export]
macro_rules! forward_store {
    ($inner:ident: $($method:ident)*) => { $($crate::forward_store!(@ $inner $method);)* };
    (@ $inner:ident describe) => {
        fn describe(&self) -> String {
            self.$inner.describe()
        }
    };
    (@ $inner:ident put) => {
        fn put(
            &self,
            key: &::cdh_store::ObjectKey,
            body: &mut dyn ::std::io::Read,
            len: u64,
        ) -> Result<::cdh_store::Receipt, ::cdh_store::StoreError> {
            self.$inner.put(key, body, len)
        }
    };
    (@ $inner:ident stat) => {
        fn stat(
            &self,
            key: &::cdh_store::ObjectKey,
        ) -> Result<Option<::cdh_store::ObjectStat>, ::cdh_store::StoreError> {
            self.$inner.stat(key)
        }
    };
    (@ $inner:ident read_pinned) => {
        fn read_pinned(
            &self,
            key: &::cdh_store::ObjectKey,
            stat: &::cdh_store::ObjectStat,
        ) -> Result<::std::sync::Arc<dyn ::cdh_elfcore::ByteSource>, ::cdh_store::StoreError> {
            self.$inner.read_pinned(key, stat)
        }
    };
    (@ $inner:ident list) => {
        fn list(
            &self,
            listing: &::cdh_store::Listing<'_>,
            visit: &mut dyn FnMut(::cdh_store::Listed) -> ::std::ops::ControlFlow<()>,
        ) -> Result<(), ::cdh_store::StoreError> {
            self.$inner.list(listing, visit)
        }
    };
    (@ $inner:ident delete) => {
        fn delete(&self, key: &::cdh_store::ObjectKey) -> Result<(), ::cdh_store::StoreError> {
            self.$inner.delete(key)
        }
    };
    (@ $inner:ident share) => {
        fn share(
            &self,
            key: &::cdh_store::ObjectKey,
            expires: ::std::time::Duration,
        ) -> Result<String, ::cdh_store::StoreError> {
            self.$inner.share(key, expires)
        }
    };
}
