//! What changes in the shared files, for a host that has a copy of them.
//!
//! Events say only that a node changed, and come by the one watch of the host's session (see [`crate::follow`]). They
//! leave marks here, which [`FileFeed::next`] turns into reads: one read for one change, in bundles for many. After each
//! time without a connection events may be missing, so the folders are listed again, and of the files that are known
//! only the version is asked for.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use maxhost_ownership::{OwnershipError, Permanent};
use zookeeper_client::{Client, Error};

use crate::client::within;
use crate::file_marks::FileMarks;
use crate::files::{FileName, Folder, list, read};
use crate::session::{Link, Shared};

/// Files that are read in one bundle: what is under way has 16 MiB at the most.
const BUNDLE: usize = 64;

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileChange {
    /// It holds these bytes now. A file that was not put by [`crate::SharedFiles`] may have more than
    /// [`crate::LARGEST_FILE`].
    Present(FileName, Vec<u8>),
    /// It is gone.
    Absent(FileName),
}

impl FileChange {
    /// The file that changed.
    #[must_use]
    pub fn into_file(self) -> FileName {
        match self {
            FileChange::Present(file, _) | FileChange::Absent(file) => file,
        }
    }
}

/// What was found at one look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FileNews {
    /// What changed: files that are gone first, then keys, then identities.
    pub changes: Vec<FileChange>,
    /// Whether that is all there is for now.
    pub caught_up: bool,
}

/// Follows the shared files by the session of a host. A host has one.
pub struct FileFeed {
    shared: Arc<Shared>,
    /// The transaction that last changed each file that was told as present. 0: it is not known.
    known: HashMap<FileName, i64>,
    pending: BTreeSet<FileName>,
}

impl FileFeed {
    pub(crate) fn new(shared: Arc<Shared>) -> FileFeed {
        FileFeed { shared, known: HashMap::new(), pending: BTreeSet::new() }
    }

    /// The host has a copy of these from before: those that are gone by now will be told as absent.
    pub fn has(&mut self, files: impl IntoIterator<Item = FileName>) {
        for file in files {
            self.known.entry(file).or_insert(0);
        }
        self.shared.file_marks.mark_all();
    }

    /// What was told of this file could not be acted on: it is told again.
    pub fn again(&mut self, file: FileName) {
        self.known.insert(file.clone(), 0);
        self.pending.insert(file);
    }

    /// Waits until files have changed, and reads up to 64 of them. At first all files are told, and after each time
    /// without a connection those that have changed in the meantime. A folder that is not there tells nothing: what was
    /// in it stays known. Giving the wait up loses nothing.
    ///
    /// # Errors
    /// Transient while ZooKeeper cannot be asked: nothing is lost, and the call is made again after a pause. Permanent
    /// when the host has left.
    pub async fn next(&mut self) -> Result<FileNews, OwnershipError> {
        let shared = Arc::clone(&self.shared);
        let mut closing = shared.closing.subscribe();
        loop {
            let looking = self.look();
            let found = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => return Err(Permanent::Closed.into()),
                found = looking => found?,
            };
            if let Some(news) = found {
                return Ok(news);
            }
            tokio::select! {
                () = shared.file_marks.rung() => {}
                _ = closing.wait_for(|closing| *closing) => return Err(Permanent::Closed.into()),
            }
        }
    }

    /// `None` if nothing is marked.
    async fn look(&mut self) -> Result<Option<FileNews>, OwnershipError> {
        let marks = self.shared.file_marks.take();
        self.pending.extend(marks.files);
        if !marks.all && self.pending.is_empty() {
            return Ok(None);
        }
        // Until the listing is done it is due, also if this is given up in its middle.
        let shared = Arc::clone(&self.shared);
        let due = Due::new(&shared.file_marks, marks.all);
        let link = shared.link()?;
        let mut gone = Vec::new();
        if marks.all {
            for folder in Folder::ALL {
                gone.extend(self.list(&link, folder).await?);
            }
        }
        let bundle: Vec<FileName> = self.pending.iter().take(BUNDLE).cloned().collect();
        let mut found = within(link.patience(), fetch(&link.client, &bundle, &self.known)).await?;
        due.done();

        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut news = FileNews::default();
        for file in gone {
            self.known.remove(&file);
            news.changes.push(FileChange::Absent(file));
        }
        for (file, fetched) in found {
            self.pending.remove(&file);
            match fetched {
                Fetched::Same => {}
                Fetched::Fresh(bytes, version) => {
                    self.known.insert(file.clone(), version);
                    news.changes.push(FileChange::Present(file, bytes));
                }
                Fetched::Gone => {
                    if self.known.remove(&file).is_some() {
                        news.changes.push(FileChange::Absent(file));
                    }
                }
            }
        }
        news.caught_up = self.pending.is_empty();
        Ok(Some(news))
    }

    /// Puts all files of a folder among the pending ones. Gives those that were known and are not there any more.
    async fn list(&mut self, link: &Link, folder: Folder) -> Result<Vec<FileName>, OwnershipError> {
        let Some(listing) = within(link.patience(), list(&link.client, folder)).await? else {
            if self.known.keys().any(|file| file.folder() == folder) {
                tracing::warn!(
                    folder = folder.path(),
                    "ZooKeeper has none of the files that this host has a copy of; it keeps the copy"
                );
            }
            return Ok(Vec::new());
        };
        if let Some(name) = listing.strange.first() {
            tracing::warn!(folder = folder.path(), name, "a node in ZooKeeper has no name of a file; it is left alone");
        }
        let listed: HashSet<FileName> = listing.files.into_iter().collect();
        let gone = self.known.keys().filter(|file| file.folder() == folder && !listed.contains(*file)).cloned();
        let gone: Vec<FileName> = gone.collect();
        self.pending.retain(|file| file.folder() != folder);
        self.pending.extend(listed);
        Ok(gone)
    }
}

/// A listing that is due until it is done.
struct Due<'a>(Option<&'a FileMarks>);

impl<'a> Due<'a> {
    fn new(marks: &'a FileMarks, is_due: bool) -> Due<'a> {
        Due(is_due.then_some(marks))
    }

    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        if let Some(marks) = self.0 {
            marks.mark_all();
        }
    }
}

enum Fetched {
    /// As it was told.
    Same,
    /// The bytes, and the transaction that wrote them.
    Fresh(Vec<u8>, i64),
    Gone,
}

async fn fetch(
    client: &Client,
    files: &[FileName],
    known: &HashMap<FileName, i64>,
) -> Result<Vec<(FileName, Fetched)>, Error> {
    let one = |file: &FileName| {
        let (file, version) = (file.clone(), known.get(file).copied().filter(|version| *version != 0));
        async move {
            if let Some(version) = version
                && client.check_stat(&file.path()).await?.is_some_and(|stat| stat.mzxid == version)
            {
                return Ok((file, Fetched::Same));
            }
            let fetched = match read(client, &file).await? {
                Some((bytes, stat)) => Fetched::Fresh(bytes, stat.mzxid),
                None => Fetched::Gone,
            };
            Ok((file, fetched))
        }
    };
    stream::iter(files.iter().map(one)).buffer_unordered(BUNDLE).try_collect().await
}
