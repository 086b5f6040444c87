// Operations on names, for the fuse-native transport.
import { devMajor, devMinor } from '../../fuse/attr.ts';
import type { NativeHandlers } from '../../fuse/native/handlers.ts';
import { entryWords } from '../../fuse/native/words.ts';
import { E } from '../../lib/errno.ts';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../../lib/stat.ts';
import { DT_DIR } from '../../sys/constants.ts';
import { link, makeObject, type NewObject, newObject } from '../../union/create.ts';
import { listedIno } from '../../union/identity.ts';
import { listDirectory } from '../../union/listing.ts';
import { readTarget } from '../../union/locate.ts';
import { rmdir, unlink } from '../../union/remove.ts';
import { rename } from '../../union/rename.ts';
import { listControl } from './control-files.ts';
import {
  asOwner,
  atNode,
  atParent,
  controlPath,
  type NativeFront,
  nodeAt,
  rerunning,
  UNKNOWN_PID,
} from './front.ts';

type NameHandlers = Pick<
  NativeHandlers,
  'readlink' | 'readdir' | 'mknod' | 'mkdir' | 'symlink' | 'link' | 'rename' | 'unlink' | 'rmdir'
>;

export function nameHandlers(front: NativeFront): NameHandlers {
  return {
    readlink: (path, out) =>
      atNode(front, path, (node) => {
        const target = readTarget(front.union, node);
        if (typeof target === 'number') return target;
        out.target = target;
        return 0;
      }),
    readdir: (path, out) => {
      const control = controlPath(path);
      if (control !== null) return listControl(front, control, out);
      return atNode(front, path, (node) => {
        const entries = listDirectory(front.union, node);
        if (typeof entries === 'number') return entries;
        const add = (name: string, ino: number, type: number) => {
          out.names.push(name);
          out.entries.push(entryWords(front.inodes.of(ino), type));
        };
        add('.', listedIno(front.union, node), DT_DIR);
        add('..', listedIno(front.union, node.place?.parent ?? node), DT_DIR);
        for (const { name, ino, type } of entries) add(name, ino, type);
        return 0;
      });
    },
    mknod: (path, mode, rdev) => {
      const type = (mode & S_IFMT) === 0 ? S_IFREG : 0;
      return make(
        front,
        path,
        newObject(mode | type, { rdevMajor: devMajor(rdev), rdevMinor: devMinor(rdev) }),
      );
    },
    mkdir: (path, mode) => make(front, path, newObject(S_IFDIR | (mode & 0o7777))),
    symlink: (target, path) => make(front, path, newObject(S_IFLNK | 0o777, { target })),
    link: (from, to) => doLink(front, from, to),
    rename: (from, to) => doRename(front, from, to),
    unlink: (path) => remove(front, path, unlink),
    rmdir: (path) => remove(front, path, rmdir),
  };
}

function make(front: NativeFront, path: string, object: NewObject) {
  if (controlPath(path) !== null) return -E.EPERM;
  return rerunning(front, () =>
    atParent(front, path, (parent, name) =>
      asOwner(front, (caller) => makeObject(front.union, parent, name, object, caller)),
    ),
  );
}

function doLink(front: NativeFront, from: string, to: string) {
  if (controlPath(from) !== null || controlPath(to) !== null) return -E.EPERM;
  return rerunning(front, () =>
    atParent(front, to, (parent, name) =>
      atNode(front, from, (node) => link(front.union, node, parent, name, UNKNOWN_PID)),
    ),
  );
}

/** The kernel does not know two links of libfuse 2 for one file, of which one takes the place of the other. */
function doRename(front: NativeFront, from: string, to: string) {
  if (controlPath(from) !== null || controlPath(to) !== null) return -E.EPERM;
  return rerunning(front, () =>
    atParent(front, from, (parent, name) =>
      atParent(front, to, (toParent, toName) => {
        const replaced = nodeAt(front, to);
        if (replaced === nodeAt(front, from)) return 0;
        const places = [
          { parent, name },
          { parent: toParent, name: toName },
        ] as const;
        const result = rename(front.union, ...places, 0, UNKNOWN_PID);
        if (result === 0 && typeof replaced !== 'number') front.held.letGo(replaced);
        return result;
      }),
    ),
  );
}

function remove(front: NativeFront, path: string, operation: typeof unlink) {
  if (controlPath(path) !== null) return -E.EPERM;
  return rerunning(front, () =>
    atParent(front, path, (parent, name) => {
      const child = front.union.table.child(parent, name);
      const result = operation(front.union, parent, name, UNKNOWN_PID);
      // Unless it has another name, by which it is held as well.
      if (result === 0 && child?.place === null) front.held.letGo(child);
      return result;
    }),
  );
}
