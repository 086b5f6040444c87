// Serves on this thread, for a transport that can do no other (fuse-native). The serving side is told from the main
// thread's side all the same: they talk through a channel, as over to a worker, so that neither knows the difference.
import { MessageChannel } from 'node:worker_threads';
import { HeldNodes, OpenFiles } from '../frontend/native/front.ts';
import { nativeHandlersOf } from '../frontend/native/index.ts';
import type { NativeServer } from '../fuse/native/server.ts';
import { ShortInodes } from '../fuse/native/words.ts';
import type { FromWorker, ServingStart, ToWorker } from './messages.ts';
import { endServing, openServing, receive } from './serving.ts';
import type { ServingEnd } from './worker-link.ts';

export function serveHere(server: NativeServer, given: ServingStart): ServingEnd {
  const { port1: ours, port2: theirs } = new MessageChannel();
  // What a worker would get: objects that are changed on one side stay as they are on the other.
  const start = structuredClone(given);
  const umask = process.umask();
  const serving = openServing(start, (message) => theirs.postMessage(message), setImmediate);
  const { union, host } = serving;
  serving.metrics = () => server.metrics();
  const front = {
    union,
    askControl: host.askControl,
    owner: start.owner,
    umask,
    held: new HeldNodes(union),
    files: new OpenFiles(),
    inodes: new ShortInodes(),
  };
  theirs.on('message', (message: ToWorker) => receive(serving, message));
  server.serve(
    nativeHandlersOf(front),
    () => host.send({ kind: 'serving', negotiated: null }),
    () => endServing(serving, 'unmounted'),
  );
  return {
    post: (message) => ours.postMessage(message),
    listen: (take) => {
      ours.on('message', (message: FromWorker) => {
        take(message);
        if (message.kind === 'ended') ours.close();
      });
    },
  };
}
