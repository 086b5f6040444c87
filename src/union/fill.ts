// Completes the origin of a whiteout, or of what has taken its name since, once the content of what it hides has
// been hashed in the background.
import { overlayDirFd } from './dir-fds.ts';
import { expirePlace } from './expiry.ts';
import { find, walk } from './lookup.ts';
import { IN_OVERLAY, type Node, WHITEOUT } from './node.ts';
import { readOrigins, writeOrigins } from './origins.ts';
import { pathAt } from './place.ts';
import type { Union } from './union.ts';
import { rememberContent } from './version.ts';

/** Nothing happens where the name has gone meanwhile, or has another origin. */
export function fillOrigin(union: Union, path: string, fingerprint: string, content: string): void {
  rememberContent(union, fingerprint, content);
  const slash = path.lastIndexOf('/');
  const name = path.slice(slash + 1);
  const parent = walk(union, slash < 0 ? '' : path.slice(0, slash));
  if (parent === null) return;
  fillAt(union, parent, name, fingerprint, content);
  union.table.letGo(parent);
}

function fillAt(union: Union, parent: Node, name: string, fingerprint: string, content: string): void {
  if (find(union, parent, name) < 0) return;
  const { state } = union.found;
  const dirFd = state === WHITEOUT || state === IN_OVERLAY ? overlayDirFd(union, parent) : -1;
  if (dirFd < 0) return;
  const list = readOrigins(union, dirFd, name);
  const origin = list.find((one) => one.fingerprint === fingerprint && one.content === '');
  if (!origin) return;
  origin.content = content;
  const error = writeOrigins(union, dirFd, name, list);
  expirePlace(union, parent, name, false);
  if (error < 0)
    union.host.log.warn(
      `${pathAt(parent, name) ?? name}: its origin could not be completed (errno ${-error})`,
    );
}
