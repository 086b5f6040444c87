// The serving worker's side of what goes on outside its requests: batches for the notifier, and events of the base.
import type { KernelView } from '../union/kernel-view.ts';
import type { NotifierEnd, ToNotifier } from './messages.ts';

/** After how long, in milliseconds, what may be late is done. */
const LATE_MS = 20;

export class NotifierLink {
  #end: NotifierEnd | null;
  readonly #kernel: KernelView;
  /** Takes note of what the base has raised by now. */
  readonly #hear: () => void;
  /** Of a batch that is to be sent. */
  #asking: (() => void)[] = [];
  /** Of batches that were sent, in their order. */
  #waiting: { batch: number; done: () => void }[] = [];
  #silent: boolean;
  /** A reminder is on its way. */
  #reminding = false;
  #reminders = 0;

  constructor(end: NotifierEnd | null, kernel: KernelView, hear: () => void) {
    this.#end = end;
    this.#kernel = kernel;
    this.#hear = hear;
    this.#silent = end === null;
    if (end !== null) kernel.written = () => Atomics.load(end.written, 0);
  }

  /** Has the worker reminded after a while of what may be late: once for all that comes until then. */
  remindLater(): void {
    if (this.#reminding || this.#end === null) return;
    this.#reminding = true;
    this.#post(LATE_MS);
  }

  /** Whether a reminder has come. */
  isReminded(): boolean {
    const reminders = this.#end === null ? 0 : Atomics.load(this.#end.written, 1);
    if (reminders === this.#reminders) return false;
    this.#reminders = reminders;
    this.#reminding = false;
    return true;
  }

  #post(message: ToNotifier): void {
    this.#end?.port.postMessage(message);
  }

  /** What has come together goes to the notifier. */
  send(): void {
    const asked = this.#asking.length > 0;
    // Who waits for all that is to be told waits for what has been raised, too.
    if (asked) this.#hear();
    const collected = asked ? this.#kernel.takeAnyway() : this.#kernel.take();
    if (collected === null) return;
    const { batch, number } = collected;
    for (const done of this.#asking.splice(0)) this.#waiting.push({ batch: number, done });
    this.#post({ batch, number, wake: asked });
  }

  /** `done` is called when the kernel has been told of all that the base has raised by now: not before send(). */
  whenTold(done: () => void): void {
    if (this.#silent || !this.#kernel.keeps) done();
    else this.#asking.push(done);
  }

  /**
   * Another notifier is in the place of one that has died. What that had still to write is lost, so everything is taken
   * back: by the caller, and who has waited for a part of it waits for that.
   */
  replace(end: NotifierEnd): void {
    this.#end = end;
    this.#reminding = false;
    for (const { done } of this.#waiting.splice(0)) this.#asking.push(done);
  }

  get isSilent(): boolean {
    return this.#silent;
  }

  /** Nobody hears us any more: who waits for the kernel to be told waits in vain. */
  silence(): void {
    this.#silent = true;
    for (const done of this.#asking.splice(0)) done();
    for (const { done } of this.#waiting.splice(0)) done();
  }

  /** Lets go on what waits for a batch that is written. */
  drain(): void {
    while (this.#waiting[0] !== undefined && this.#kernel.isWritten(this.#waiting[0].batch)) {
      this.#waiting.shift()?.done();
    }
  }
}
