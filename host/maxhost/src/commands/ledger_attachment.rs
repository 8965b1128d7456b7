//! `maxhost attachment … --identity`: the attachments in the ledger of an identity, through the host that runs.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use futures::stream;
use indicatif::ProgressBar;
use maxhost_model::{Code, Problem, SecureHash};
use maxhost_rpc::Client;
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::proto::v1::export_attachment_response::Part as Came;
use maxhost_rpc::proto::v1::import_attachment_request::Part as Sent;
use serde_json::{Value, json};

use crate::cli::AttachmentCommand;
use crate::context::{Context, Outcome};
use crate::files::io_problem;
use crate::output::write_file;
use crate::render;

/// Bytes of a file in one message.
const CHUNK: usize = 256 << 10;
/// The largest file that is taken from a host, bytes.
const LARGEST: u64 = 1 << 30;

/// What is asked about the ledger of an identity.
pub enum Asked {
    List { identity: String, limit: u32, cursor: Option<String> },
    Show { identity: String, id: String },
    Import { identity: String, file: PathBuf },
    Export { identity: String, id: String, file: Option<PathBuf> },
}

/// The command, if it names an identity; else as it was.
///
/// # Errors
/// The command, if it names none.
pub fn of_identity(command: AttachmentCommand) -> Result<Asked, AttachmentCommand> {
    Ok(match command {
        AttachmentCommand::List { identity: Some(identity), limit, cursor } => Asked::List { identity, limit, cursor },
        AttachmentCommand::Show { identity: Some(identity), id } => Asked::Show { identity, id },
        AttachmentCommand::Import { identity: Some(identity), file } => Asked::Import { identity, file },
        AttachmentCommand::Export { identity: Some(identity), id, file } => Asked::Export { identity, id, file },
        other => return Err(other),
    })
}

/// Does what was asked.
pub fn execute(context: &Context, asked: Asked) -> Outcome {
    match asked {
        Asked::List { identity, limit, cursor } => {
            let request = pb::ListAttachmentsRequest { identity, limit, cursor };
            let answer = context.block_on(context.client()?.list_attachments(request))?;
            let mut listed: Vec<Value> = answer.attachments.iter().map(attachment).collect();
            if context.out.is_json() {
                listed.extend(answer.cursor.map(|cursor| json!({ "cursor": cursor })));
                context.out.list(&listed, &[], |_| Vec::new());
                return Ok(0);
            }
            context.out.list(&listed, &["ID", "NAME", "VERSION", "SIGNERS", "BYTES", "SOURCE"], |one| {
                vec![
                    render::cell(one, "id"),
                    render::cell(one, "name"),
                    render::cell(one, "version"),
                    one["signers"].as_array().map_or(0, Vec::len).to_string(),
                    render::plain(&one["bytes"]),
                    render::cell(one, "source"),
                ]
            });
            if let Some(cursor) = answer.cursor {
                context.out.note(&format!("there are more: --cursor {cursor}"));
            }
        }
        Asked::Show { identity, id } => {
            let answer =
                context.block_on(context.client()?.get_attachment(pb::GetAttachmentRequest { identity, id }))?;
            let object = attachment(&answer.attachment.unwrap_or_default());
            context.out.object(&object, || render::lines(&object));
        }
        Asked::Import { identity, file } => return import(context, identity, &file),
        Asked::Export { file: None, .. } if context.out.is_json() => return Err(needs_file()),
        Asked::Export { identity, id, file } => return export(context, identity, id, file.as_deref()),
    }
    Ok(0)
}

/// An attachment, with the fields that one has that is beside the host, and where it came from.
fn attachment(one: &pb::Attachment) -> Value {
    let code = one.code.as_ref();
    json!({
        "id": one.id,
        "code_hash": code.map(|code| &code.code_hash),
        "name": code.and_then(|code| code.name.as_ref()),
        "version": code.and_then(|code| code.version.as_ref()),
        "signers": code.map(|code| code.signers.clone()).unwrap_or_default(),
        "bytes": one.bytes,
        "source": one.source,
        "kept": render::time(one.kept),
    })
}

/// Bytes go to standard output, or JSON does.
pub fn needs_file() -> Problem {
    let text = "--json: the bytes of an attachment are no JSON, and need a file of their own";
    Problem::new(Code::Usage, text).remedy("name it with --file FILE, or leave --json out")
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    io_problem(Code::FileUnreadable, "read", path, error)
}

/// Opens a file that is read twice: once for its id, which is announced, and once to be sent.
fn open(path: &Path) -> Result<File, Problem> {
    use std::os::unix::fs::OpenOptionsExt;
    // A FIFO without a writer is opened at once with this flag, and refused below.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| unreadable(path, &error))?;
    if file.metadata().map_err(|error| unreadable(path, &error))?.is_file() {
        return Ok(file);
    }
    let text = format!("{} is no regular file", path.display());
    Err(Problem::new(Code::FileUnreadable, text).detail("path", path.display().to_string()))
}

/// The next bytes of a file; none at its end.
fn piece(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(CHUNK);
    file.take(CHUNK as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

/// The id and the size of a file, which is then at its beginning again.
fn measured(file: &mut File, path: &Path) -> Result<(SecureHash, u64), Problem> {
    let mut size = 0;
    let pieces = std::iter::from_fn(|| match piece(file) {
        Ok(piece) if piece.is_empty() => None,
        Ok(piece) => {
            size += piece.len() as u64;
            Some(Ok(piece))
        }
        Err(error) => Some(Err(error)),
    });
    let id = SecureHash::of_pieces(pieces).map_err(|error| unreadable(path, &error))?;
    file.rewind().map_err(|error| unreadable(path, &error))?;
    Ok((id, size))
}

/// A file as messages. If it cannot be read to its end, or is another by now, less comes than was announced, or something else,
/// and the host refuses it.
fn parts(
    announced: pb::ImportedFile,
    file: File,
    shown: ProgressBar,
) -> impl futures::Stream<Item = pb::ImportAttachmentRequest> + Send {
    let message = |part| pb::ImportAttachmentRequest { part: Some(part) };
    let chunks = stream::unfold((file, shown), move |(mut file, shown)| async move {
        let piece = piece(&mut file).ok().filter(|piece| !piece.is_empty())?;
        shown.inc(piece.len() as u64);
        Some((message(Sent::Chunk(piece)), (file, shown)))
    });
    futures::StreamExt::chain(stream::once(async move { message(Sent::File(announced)) }), chunks)
}

fn import(context: &Context, identity: String, path: &Path) -> Outcome {
    let mut file = open(path)?;
    let (id, bytes) = measured(&mut file, path)?;
    let client = context.client()?;
    let shown = context.out.progress(bytes, "sent");
    let announced = pb::ImportedFile { identity, id: id.to_string(), bytes };
    context.block_on_endless(async {
        let answer = client.import_attachment(parts(announced, file, shown.clone())).await;
        shown.finish_and_clear();
        let answer = answer?;
        let mut object = attachment(&answer.attachment.unwrap_or_default());
        object["new"] = answer.new.into();
        context.out.object(&object, || id.to_string());
        Ok(0)
    })
}

fn export(context: &Context, identity: String, id: String, path: Option<&Path>) -> Outcome {
    let client = context.client()?;
    context.block_on_endless(async {
        let (about, bytes) = received(context, &client, pb::ExportAttachmentRequest { identity, id }).await?;
        let mut object = attachment(&about);
        match path {
            Some(path) => {
                std::fs::write(path, &bytes)
                    .map_err(|error| io_problem(Code::DirectoryUnwritable, "write", path, &error))?;
                object["file"] = path.display().to_string().into();
                context.out.object(&object, || path.display().to_string());
            }
            None => write_file(&bytes)?,
        }
        Ok(0)
    })
}

/// The whole of a file, which is what its id says. Nothing is written before all of it is here.
async fn received(
    context: &Context,
    client: &Client,
    request: pb::ExportAttachmentRequest,
) -> Result<(pb::Attachment, Vec<u8>), Problem> {
    let broken = |what: String| Problem::new(Code::HostUnreachable, what).remedy("try again");
    let mut stream = client.export_attachment(request).await?;
    let first = client.next_part(&mut stream).await?.and_then(|message| message.part);
    let Some(Came::Attachment(about)) = first else {
        return Err(broken("the host does not say what it sends".to_owned()));
    };
    if about.bytes > LARGEST {
        let text = format!("the attachment {} has {} bytes, and {LARGEST} are taken", about.id, about.bytes);
        return Err(Problem::new(Code::AttachmentTooLarge, text));
    }
    let shown = context.out.progress(about.bytes, "received");
    let mut bytes = Vec::new();
    while let Some(message) = client.next_part(&mut stream).await? {
        if let Some(Came::Chunk(chunk)) = message.part {
            bytes.extend_from_slice(&chunk);
            shown.inc(chunk.len() as u64);
        }
        if bytes.len() as u64 > about.bytes {
            break;
        }
    }
    shown.finish_and_clear();
    if bytes.len() as u64 != about.bytes || SecureHash::of(&bytes).to_string() != about.id {
        let text =
            format!("{} bytes came for the attachment {}, and they are not those of its id", bytes.len(), about.id);
        return Err(broken(text));
    }
    Ok((about, bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::io::Write;

    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_file_is_announced_and_sent_as_it_is() {
        for size in [0, 1, CHUNK, CHUNK + 1] {
            let mut file = tempfile::tempfile().unwrap();
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            file.write_all(&bytes).unwrap();
            file.rewind().unwrap();
            let (id, length) = measured(&mut file, Path::new("file")).unwrap();
            assert_eq!((id, length), (SecureHash::of(&bytes), size as u64));
            let announced = pb::ImportedFile { identity: "Alice".to_owned(), id: id.to_string(), bytes: length };
            let sent: Vec<_> = parts(announced.clone(), file, ProgressBar::hidden()).collect().await;
            let mut sent = sent.into_iter().map(|message| message.part.unwrap());
            assert_eq!(sent.next(), Some(Sent::File(announced)));
            let chunk = |part| match part {
                Sent::Chunk(chunk) => chunk,
                Sent::File(file) => panic!("announced twice: {file:?}"),
            };
            assert_eq!(sent.map(chunk).collect::<Vec<_>>().concat(), bytes);
        }
    }
}
