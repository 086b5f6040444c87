// Operations on open files, for the fuse-native transport.
import type { Answer, NativeHandlers } from '../../fuse/native/handlers.ts';
import { E } from '../../lib/errno.ts';
import { S_IFREG } from '../../lib/stat.ts';
import { O_DSYNC, O_RDWR, O_SYNC, O_TRUNC } from '../../sys/constants.ts';
import { createFile, newObject } from '../../union/create.ts';
import type { Handle } from '../../union/node.ts';
import { fsync, fsyncDirectory, open, read, write } from '../../union/open.ts';
import { closeHandle } from '../../union/passthrough.ts';
import { noLongerWritten } from '../../union/stale.ts';
import { closeControl, openControl, readControl, writeControl } from './control-files.ts';
import {
  asOwner,
  atNode,
  atParent,
  controlPath,
  type NativeFront,
  rerunning,
  resulting,
  UNKNOWN_PID,
} from './front.ts';

type FileHandlers = Pick<
  NativeHandlers,
  'open' | 'create' | 'read' | 'write' | 'release' | 'fsync' | 'fsyncdir'
>;

export function fileHandlers(front: NativeFront): FileHandlers {
  const { union } = front;
  return {
    open: (path, flags) => {
      const control = controlPath(path);
      if (control !== null) return openControl(front, control, flags);
      // Who truncates by opening has not been made to drop set-id bits, and is not known.
      const dropSetid = (flags & O_TRUNC) !== 0;
      return rerunning(front, (hasWaited) =>
        atNode(front, path, (node) =>
          opened(front, open(union, node, flags, UNKNOWN_PID, { dropSetid, hasWaited })),
        ),
      );
    },
    create: (path, mode) => {
      if (controlPath(path) !== null) return -E.EPERM;
      // With what flags is not told; the kernel holds the file to them.
      const object = newObject(S_IFREG | (mode & 0o7777), { flags: O_RDWR });
      return rerunning(front, () =>
        atParent(front, path, (parent, name) =>
          asOwner(front, (caller) => opened(front, createFile(union, parent, name, object, caller))),
        ),
      );
    },
    read: (at, into, offset) => {
      const file = front.files.get(at);
      if (file === null) return -E.EBADF;
      if (!('node' in file)) return readControl(front, file.control, into, offset);
      return read(file, into, 0, into.length, offset);
    },
    write: (at, from, offset) => {
      const file = front.files.get(at);
      if (file === null) return -E.EBADF;
      if (!('node' in file)) return writeControl(front, file.path, from);
      return doWrite(front, file, from, offset);
    },
    release: (at) => {
      const file = front.files.get(at);
      front.files.remove(at);
      if (file === null) return 0;
      if (!('node' in file)) return closeControl(front, file.control);
      noLongerWritten(union, file);
      closeHandle(union, file);
      return 0;
    },
    fsync: (at, dataOnly) => {
      const file = front.files.get(at);
      if (file === null) return -E.EBADF;
      return 'node' in file ? resulting(front, () => fsync(union, file, dataOnly)) : 0;
    },
    fsyncdir: (path) => {
      if (controlPath(path) !== null) return 0;
      return resulting(front, () => atNode(front, path, (node) => fsyncDirectory(union, node)));
    },
  };
}

function opened(front: NativeFront, handle: Handle | number): number {
  return typeof handle === 'number' ? handle : front.files.add(handle);
}

function doWrite(front: NativeFront, handle: Handle, from: Buffer, offset: number): Answer {
  const { union } = front;
  const written = write(union, handle, from, 0, from.length, offset, false, UNKNOWN_PID);
  const how = handle.flags & O_SYNC;
  if (written < 0 || how === 0) return written;
  return Promise.resolve(resulting(front, () => fsync(union, handle, how === O_DSYNC))).then((error) =>
    error < 0 ? error : written,
  );
}
