// What it takes to stay coherent while the kernel keeps things: how it is chosen at the start, which threads and
// processes it needs, and how the mount goes over to `check` where one of them cannot be had, or is lost.
import type { MountOptions } from '../control/mount-options.ts';
import { minorOf } from '../control/mountinfo.ts';
import type { Negotiated } from '../fuse/init.ts';
import { errnoName } from '../lib/errno.ts';
import type { Log } from '../lib/log.ts';
import type { Announcer } from './announcer.ts';
import { BaseWatcher } from './base-watcher.ts';
import type { OpenBranches } from './branches.ts';
import {
  type Coherence,
  chooseCoherence,
  tooOld,
  withoutEvents,
  withoutHearing,
  withoutNotifier,
  withoutWatchdog,
} from './coherence.ts';
import type { Notifier } from './notifier.ts';
import { Deaths } from './side-thread.ts';
import type { Transport } from './transport.ts';
import { startWatchdog, type Watchdog } from './watchdog.ts';
import type { WorkerLink } from './worker-link.ts';

export class Telling {
  coherence: Coherence;
  /** null: nothing is watched. */
  watcher: BaseWatcher | null;
  /** null: the kernel keeps nothing, so it need not be told. */
  readonly notifier: Notifier | null;
  /** null: guests hear of nothing. */
  readonly announcer: Announcer | null;
  #watchdog: Watchdog | null = null;
  readonly #watchdogsDied = new Deaths();
  readonly #minor: number;
  readonly #wish: MountOptions['coherence'];
  /** A sentence each, for status. */
  readonly #notes: string[];
  readonly #log: Log;
  readonly #link: () => Pick<WorkerLink, 'send' | 'carryWatches'>;

  /** To be made where the mount is there and nobody serves yet. */
  constructor(
    options: MountOptions,
    branches: Pick<OpenBranches, 'layers' | 'rights'>,
    transport: Transport,
    notes: string[],
    log: Log,
    link: () => Pick<WorkerLink, 'send' | 'carryWatches'>,
  ) {
    this.#wish = options.coherence;
    this.#notes = notes;
    this.#log = log;
    this.#link = link;
    this.coherence = chooseCoherence(options);
    this.#minor = minorOf(options.mountPoint);
    this.watcher = this.#watchBase(options, branches);
    if (this.coherence.keeping !== 'none') this.#startWatchdog();
    const { keeping } = this.coherence;
    this.notifier = keeping === 'none' ? null : transport.prepareNotifier();
    // Nothing can be done through a mount that is read-only, not even for show.
    this.announcer = keeping === 'watched' && !options.readOnly ? transport.prepareAnnouncer() : null;
    if (this.coherence.note !== null) notes.push(this.coherence.note);
    if (this.notifier !== null) this.notifier.onReplaced = (end, last) => this.#newNotifier(end, last);
    if (this.announcer !== null) this.announcer.onDied = (contact) => this.#newAnnouncer(contact);
  }

  #watchBase(
    { watch }: MountOptions,
    { layers, rights }: Pick<OpenBranches, 'layers' | 'rights'>,
  ): BaseWatcher | null {
    if (this.coherence.keeping !== 'watched') return null;
    const watcher = new BaseWatcher({
      wish: watch,
      privileged: rights.privileged,
      layers,
      log: this.#log,
      say: (note) => this.#note(note),
      lost: (error) => this.#check(withoutEvents(errnoName(error))),
      link: this.#link,
    });
    if (watcher.error === 0) return watcher;
    this.coherence = withoutEvents(errnoName(watcher.error));
    return null;
  }

  /** Without one clients could wait for ever: then notifications are only for who has asked for them. */
  #startWatchdog(): void {
    this.#watchdog = startWatchdog(this.#minor, this.#log, () => this.#watchdogDied());
    if (this.#watchdog !== null || this.#wish.mode !== 'auto') return;
    this.coherence = withoutWatchdog();
    this.watcher?.close();
    this.watcher = null;
  }

  #watchdogDied(): void {
    const again = this.#watchdogsDied.add();
    this.#watchdog = again ? startWatchdog(this.#minor, this.#log, () => this.#watchdogDied()) : null;
    if (this.#watchdog === null && this.#wish.mode === 'auto') this.#check(withoutWatchdog());
  }

  /** The mount serves. Nobody waits for the notifier: what it is given until it comes waits in its port. */
  begin(negotiated: Negotiated | null): void {
    if (this.notifier === null) return;
    const isOld = negotiated !== null && !negotiated.offers.HAS_EXPIRE_ONLY;
    if (isOld) this.#check(tooOld(negotiated.kernelMinor));
    void this.notifier.start().then((apart) => {
      if (!apart && !isOld && this.#wish.mode === 'auto') this.#check(withoutWatchdog());
    });
  }

  /** Reading the watcher gave an error that does not pass. */
  deaf(error: number): void {
    this.#check(withoutHearing(errnoName(error)));
  }

  /** From now on nothing is kept, and what the kernel has is taken back. */
  #check(coherence: Coherence): void {
    this.coherence = coherence;
    this.#note(coherence.note ?? '');
    this.#link().send({ kind: 'unheard' });
  }

  #note(note: string): void {
    this.#notes.push(note);
    this.#log.warn(note);
  }

  #newNotifier(end: Notifier['end'], last: boolean): void {
    this.#log.warn('the notifier has ended: another one takes back what the kernel keeps');
    this.#link().send({ kind: 'notifier', end });
    if (last) this.#check(withoutNotifier());
  }

  #newAnnouncer(contact: Announcer['contact'] | null): void {
    if (contact === null) this.#note('guests’ inotify tells nothing of the base: the announcer has ended');
    this.#link().send({ kind: 'announcer', contact });
  }

  /** The mount has ended. `orderly`: nobody can wait for an answer any more; else whoever does gets an error. */
  end(orderly: boolean): void {
    this.notifier?.stop();
    this.announcer?.stop();
    if (orderly) this.#watchdog?.dismiss();
    else this.#watchdog?.abort();
  }
}
