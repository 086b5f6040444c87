// The serving worker's side of what goes on outside its requests: batches for the notifier, and events of the base.
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { read } from '../sys/file.ts';
import { parseInotify } from '../sys/poll.ts';
import type { KernelView } from '../union/kernel-view.ts';
import type { Node } from '../union/node.ts';
import type { ToNotifier } from './messages.ts';

const nothing = new Uint8Array(0);

export class NotifierLink {
  readonly #port: MessagePort | null;
  readonly #kernel: KernelView;
  readonly #confirming = new Map<number, () => void>();
  #next = 1;
  #silent = false;

  constructor(port: MessagePort | null, kernel: KernelView) {
    this.#port = port;
    this.#kernel = kernel;
  }

  /** What has come together goes to the notifier. */
  send(): void {
    const batch = this.#kernel.take();
    if (batch !== null) this.#post({ batch, confirm: 0 });
  }

  /** `done` is called in a later drain(), when the kernel has been told of the node and of all before. */
  confirm(node: Node, done: () => void): void {
    if (this.#silent) {
      done();
      return;
    }
    const confirm = this.#next++;
    this.#confirming.set(confirm, done);
    this.#kernel.changed(node, false);
    this.#post({ batch: this.#kernel.take() ?? nothing, confirm });
  }

  /** Nobody hears us any more: who waits for the kernel to be told waits in vain. */
  silence(): void {
    this.#silent = true;
    for (const done of this.#confirming.values()) done();
    this.#confirming.clear();
  }

  drain(): void {
    if (this.#port === null) return;
    for (let got = receiveMessageOnPort(this.#port); got; got = receiveMessageOnPort(this.#port)) {
      const confirm = got.message as number;
      this.#confirming.get(confirm)?.();
      this.#confirming.delete(confirm);
    }
  }

  #post(message: ToNotifier): void {
    this.#port?.postMessage(message);
  }
}

/** Room for some thousand events. */
const events = Buffer.allocUnsafeSlow(256 * 1024);

/** Everything that inotify has to tell by now. */
export function readEvents(fd: number, each: (watch: number, mask: number, name: string) => void): void {
  for (;;) {
    const length = read(fd, events, 0, events.length);
    if (length <= 0) return;
    parseInotify(events, length, (watch, mask, _cookie, name) => each(watch, mask, name));
  }
}
