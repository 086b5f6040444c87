// Operations on attributes, for the fuse-native transport.
import type { Answer, NativeHandlers } from '../../fuse/native/handlers.ts';
import { putStat, putStatfs } from '../../fuse/native/words.ts';
import { E } from '../../lib/errno.ts';
import { UTIME_OMIT } from '../../sys/constants.ts';
import { fstatfs, newStatfs } from '../../sys/file.ts';
import { type Change, getattr, setattr } from '../../union/attributes.ts';
import { getAttribute, listAttributes, removeAttribute, setAttribute } from '../../union/xattrs.ts';
import { statControl } from './control-files.ts';
import { atNode, controlPath, type NativeFront, rerunning, UNKNOWN_PID } from './front.ts';

type AttributeHandlers = Pick<
  NativeHandlers,
  | 'getattr'
  | 'fgetattr'
  | 'statfs'
  | 'chmod'
  | 'chown'
  | 'truncate'
  | 'ftruncate'
  | 'utimens'
  | 'setxattr'
  | 'getxattr'
  | 'listxattr'
  | 'removexattr'
>;

const unchanged: Change = {
  mode: null,
  uid: null,
  gid: null,
  size: null,
  atimeSec: 0,
  atimeNsec: UTIME_OMIT,
  mtimeSec: 0,
  mtimeNsec: UTIME_OMIT,
  // The kernel does so itself, by a chmod of its own.
  killSetid: false,
  handle: null,
};

export function attributeHandlers(front: NativeFront): AttributeHandlers {
  return {
    getattr: (path, out) => {
      const control = controlPath(path);
      if (control !== null) return statControl(front, control, out);
      return atNode(front, path, () => putEntry(front, out));
    },
    fgetattr: (at, out) => {
      const file = front.files.get(at);
      if (file === null) return -E.EBADF;
      if (!('node' in file)) return statControl(front, file.path, out);
      const error = getattr(front.union, file.node);
      return error < 0 ? error : putEntry(front, out);
    },
    statfs: (out) => {
      const space = newStatfs();
      const error = fstatfs(front.union.overlay.rootFd, space);
      return error < 0 ? error : putStatfs(out, space);
    },
    chmod: (path, mode) => change(front, path, { mode }),
    chown: (path, uid, gid) => change(front, path, { uid, gid }),
    truncate: (path, size) => {
      const control = controlPath(path);
      if (control !== null) return control === 'control' && size === 0 ? 0 : -E.EPERM;
      return change(front, path, { size });
    },
    ftruncate: (at, size) => {
      const file = front.files.get(at);
      if (file === null) return -E.EBADF;
      if (!('node' in file)) return file.path === 'control' && size === 0 ? 0 : -E.EPERM;
      const to = { ...unchanged, size, handle: file };
      return rerunning(front, () => setattr(front.union, file.node, to, UNKNOWN_PID));
    },
    utimens: (path, atime, mtime) => {
      const [atimeSec, atimeNsec] = split(atime);
      const [mtimeSec, mtimeNsec] = split(mtime);
      return change(front, path, { atimeSec, atimeNsec, mtimeSec, mtimeNsec });
    },
    setxattr: (path, name, value, flags) => {
      if (controlPath(path) !== null) return -E.EOPNOTSUPP;
      return rerunning(front, () =>
        atNode(front, path, (node) =>
          setAttribute(front.union, node, name, value, flags, false, UNKNOWN_PID),
        ),
      );
    },
    getxattr: (path, name, out) => valueAt(front, path, out, (node) => getAttribute(front.union, node, name)),
    // Names of trusted.* are listed to everybody; who may read their values is for the kernel to say.
    listxattr: (path, out) => valueAt(front, path, out, (node) => listAttributes(front.union, node, true)),
    removexattr: (path, name) => {
      if (controlPath(path) !== null) return -E.EOPNOTSUPP;
      return rerunning(front, () =>
        atNode(front, path, (node) => removeAttribute(front.union, node, name, UNKNOWN_PID)),
      );
    },
  };
}

function putEntry({ union, inodes }: NativeFront, out: Uint32Array): 0 {
  return putStat(out, union.entry.stat, inodes.of(union.entry.ino));
}

function change(front: NativeFront, path: string, what: Partial<Change>): Answer {
  if (controlPath(path) !== null) return -E.EPERM;
  const to = { ...unchanged, ...what };
  return rerunning(front, () => atNode(front, path, (node) => setattr(front.union, node, to, UNKNOWN_PID)));
}

/** Seconds and nanoseconds. */
function split(milliseconds: number): [number, number] {
  const seconds = Math.floor(milliseconds / 1000);
  return [seconds, (milliseconds - seconds * 1000) * 1e6];
}

function valueAt(
  front: NativeFront,
  path: string,
  out: { value: Buffer },
  read: (node: Parameters<typeof getAttribute>[1]) => Buffer | number,
): number {
  if (controlPath(path) !== null) return -E.EOPNOTSUPP;
  return atNode(front, path, (node) => {
    const value = read(node);
    if (typeof value === 'number') return value;
    out.value = value;
    return 0;
  });
}
