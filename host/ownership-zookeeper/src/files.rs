//! Small files that the hosts of a cluster share by way of ZooKeeper. What is in them is for whoever reads them: here
//! they are bytes.
//!
//! There are two folders, [`Folder::Identities`] and [`Folder::Keys`], and a file is one node. A folder is made when the
//! first file is put: a cluster without the node of a folder was never given files, or has lost its ZooKeeper.

use futures::stream::{self, StreamExt, TryStreamExt};
use maxhost_ownership::{OwnershipError, Permanent};
use zookeeper_client::{Client, CreateMode, Error};

use crate::client::{cluster, connect, create_options, within};
use crate::nodes;
use crate::options::ZooKeeperOptions;

/// The largest file, bytes. ZooKeeper takes no request of 1 MiB (`jute.maxbuffer`), and keeps all nodes in memory.
pub const LARGEST_FILE: usize = 256 << 10;
/// The longest name, characters: the names of a folder of 10,000 files are one answer of less than 1 MiB.
const LONGEST_NAME: usize = 64;
/// Files that are read at once.
const READS: usize = 64;

/// A folder of files. Files of the first are read before those of the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Folder {
    /// `/keys`: sealed keys with their certificates.
    Keys,
    /// `/identities`: which identities there are.
    Identities,
}

impl Folder {
    /// Both, in the order in which they are read.
    pub const ALL: [Folder; 2] = [Folder::Keys, Folder::Identities];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Folder::Keys => nodes::KEYS,
            Folder::Identities => nodes::IDENTITIES,
        }
    }
}

/// The name of a file, with its folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName {
    folder: Folder,
    name: Box<str>,
}

impl FileName {
    /// A name of up to 64 letters, digits, `-`, `_` and `.` that does not begin with `.`; `None` for any other.
    #[must_use]
    pub fn new(folder: Folder, name: &str) -> Option<FileName> {
        let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let fits = (1..=LONGEST_NAME).contains(&name.len()) && !name.starts_with('.') && name.chars().all(is_good);
        fits.then(|| FileName { folder, name: name.into() })
    }

    /// The file that is kept in the node of this path.
    pub(crate) fn of_path(path: &str) -> Option<FileName> {
        let (parent, name) = path.rsplit_once('/')?;
        let folder = Folder::ALL.into_iter().find(|folder| folder.path() == parent)?;
        FileName::new(folder, name)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> Folder {
        self.folder
    }

    /// Its name in the folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its node, below the folder of the cluster.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.folder.path(), self.name)
    }
}

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The files, in no order.
    pub files: Vec<FileName>,
    /// Names of nodes that are none of a file: somebody else made them.
    pub strange: Vec<String>,
}

/// What putting a file did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// There was none.
    Created,
    /// It was another.
    Changed,
    /// It is there as it is.
    Unchanged,
}

/// Reading and changing the files, for a command. It is no host: it owns nothing.
pub struct SharedFiles {
    client: Client,
    options: ZooKeeperOptions,
}

impl SharedFiles {
    /// Connects to the folder of a cluster. Changes nothing.
    ///
    /// # Errors
    /// Permanent if the servers refuse who asks, or the folder is that of another cluster than `id`; transient if no
    /// server can be reached.
    pub async fn open(options: ZooKeeperOptions, id: &str) -> Result<SharedFiles, OwnershipError> {
        let client = connect(&options, &options.address.folder, None).await?;
        if within(options.session_timeout, client.check_stat(nodes::CLUSTER)).await?.is_some() {
            let found = cluster(&client, options.session_timeout).await?;
            if found.id != id {
                return Err(Permanent::refused("it is the folder of hosts of another network").into());
            }
        }
        Ok(SharedFiles { client, options })
    }

    /// What a folder holds; `None` if it was never made.
    ///
    /// # Errors
    /// Those of ZooKeeper.
    pub async fn list(&self, folder: Folder) -> Result<Option<Listing>, OwnershipError> {
        within(self.options.session_timeout, list(&self.client, folder)).await
    }

    /// What a file holds; `None` if there is none.
    ///
    /// # Errors
    /// Those of ZooKeeper.
    pub async fn read(&self, file: &FileName) -> Result<Option<Vec<u8>>, OwnershipError> {
        let found = within(self.options.session_timeout, read(&self.client, file)).await?;
        Ok(found.map(|(bytes, _)| bytes))
    }

    /// Reads many files, some at once, and gives each to `take` when it has come. Those that are not there are left out.
    ///
    /// # Errors
    /// Those of ZooKeeper; some files may have been given by then.
    pub async fn read_each(
        &self,
        files: Vec<FileName>,
        mut take: impl FnMut(FileName, Vec<u8>),
    ) -> Result<(), OwnershipError> {
        let one = |file: FileName| async move { Ok::<_, OwnershipError>((self.read(&file).await?, file)) };
        let mut reads = stream::iter(files.into_iter().map(one)).buffer_unordered(READS);
        while let Some((bytes, file)) = reads.try_next().await? {
            if let Some(bytes) = bytes {
                take(file, bytes);
            }
        }
        Ok(())
    }

    /// Makes the folders, with that of the cluster, if they are not there.
    ///
    /// # Errors
    /// Those of ZooKeeper.
    pub async fn make_folders(&self) -> Result<(), OwnershipError> {
        let (limit, persistent) = (self.options.session_timeout, create_options(&self.options, CreateMode::Persistent));
        let outside = connect(&self.options, "", None).await?;
        within(limit, outside.mkdir(&self.options.address.folder, &persistent)).await?;
        for folder in Folder::ALL {
            within(limit, self.client.mkdir(folder.path(), &persistent)).await?;
        }
        Ok(())
    }

    /// Has a file hold these bytes. Its folder must have been made.
    ///
    /// # Errors
    /// Permanent if there are more than [`LARGEST_FILE`]; those of ZooKeeper.
    pub async fn put(&self, file: &FileName, bytes: &[u8]) -> Result<Put, OwnershipError> {
        check_size(file, bytes)?;
        loop {
            let found = within(self.options.session_timeout, read(&self.client, file)).await?;
            let Some((present, stat)) = found else {
                match self.create(file, bytes).await? {
                    true => return Ok(Put::Created),
                    false => continue,
                }
            };
            if present == bytes {
                return Ok(Put::Unchanged);
            }
            let changed = within(self.options.session_timeout, async {
                match self.client.set_data(&file.path(), bytes, Some(stat.version)).await {
                    Err(Error::BadVersion | Error::NoNode) => Ok(false),
                    changed => changed.map(|_| true),
                }
            });
            if changed.await? {
                return Ok(Put::Changed);
            }
        }
    }

    /// Makes a file; false if there is one of this name.
    ///
    /// # Errors
    /// As [`SharedFiles::put`].
    pub async fn create(&self, file: &FileName, bytes: &[u8]) -> Result<bool, OwnershipError> {
        check_size(file, bytes)?;
        let persistent = create_options(&self.options, CreateMode::Persistent);
        within(self.options.session_timeout, async {
            match self.client.create(&file.path(), bytes, &persistent).await {
                Err(Error::NodeExists) => Ok(false),
                created => created.map(|_| true),
            }
        })
        .await
    }

    /// Removes a file; false if there is none.
    ///
    /// # Errors
    /// Those of ZooKeeper.
    pub async fn remove(&self, file: &FileName) -> Result<bool, OwnershipError> {
        within(self.options.session_timeout, async {
            match self.client.delete(&file.path(), None).await {
                Err(Error::NoNode) => Ok(false),
                removed => removed.map(|()| true),
            }
        })
        .await
    }
}

fn check_size(file: &FileName, bytes: &[u8]) -> Result<(), OwnershipError> {
    let size = bytes.len();
    match size <= LARGEST_FILE {
        true => Ok(()),
        false => Err(Permanent::refused(format!(
            "{} would have {size} bytes, and a file has {LARGEST_FILE} at the most",
            file.path()
        ))
        .into()),
    }
}

/// What a folder holds; `None` if it was never made.
pub(crate) async fn list(client: &Client, folder: Folder) -> Result<Option<Listing>, Error> {
    let names = match client.list_children(folder.path()).await {
        Err(Error::NoNode) => return Ok(None),
        names => names?,
    };
    let mut listing = Listing { files: Vec::with_capacity(names.len()), strange: Vec::new() };
    for name in names {
        match FileName::new(folder, &name) {
            Some(file) => listing.files.push(file),
            None => listing.strange.push(name),
        }
    }
    Ok(Some(listing))
}

/// What a file holds, with the facts of its node; `None` if there is none.
pub(crate) async fn read(client: &Client, file: &FileName) -> Result<Option<(Vec<u8>, zookeeper_client::Stat)>, Error> {
    match client.get_data(&file.path()).await {
        Err(Error::NoNode) => Ok(None),
        found => found.map(Some),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_those_of_files_anywhere() {
        let file = FileName::new(Folder::Keys, "party-00001").unwrap();
        assert_eq!((file.path().as_str(), FileName::of_path("/keys/party-00001")), ("/keys/party-00001", Some(file)));
        let longest = "x".repeat(LONGEST_NAME);
        assert!(FileName::new(Folder::Identities, &longest).is_some());
        for bad in ["", ".", "..", ".hidden", "a b", "a/b", "ä", &format!("{longest}x")] {
            assert_eq!(FileName::new(Folder::Identities, bad), None, "{bad}");
        }
        for other in ["/keys", "/owners/alice", "/identities/a/b", "/identities/", "alice"] {
            assert_eq!(FileName::of_path(other), None, "{other}");
        }
    }
}
