// All operations of the direct transport, one function each.
import type { Handlers } from '../fuse/request.ts';
import { withAnnouncer } from './announced.ts';
import { attributeHandlers } from './attributes.ts';
import { directoryHandlers } from './directories.ts';
import { fileHandlers } from './files.ts';
import type { Front } from './front.ts';
import { lockHandlers } from './locks.ts';
import { nameHandlers } from './names.ts';

export function handlersOf(front: Front): Handlers {
  const handlers = withAnnouncer(front, {
    ...nameHandlers(front),
    ...attributeHandlers(front),
    ...fileHandlers(front),
    ...directoryHandlers(front),
    ...lockHandlers(front),
  });
  return front.ahead.guard(handlers);
}
