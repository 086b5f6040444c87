// The serving worker's side of the announcer: what is to be told goes out when the announcer asks for it, and after
// the kernel has been told, so that who is woken by an event finds what it is about.
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { takeAnnouncements } from '../union/announce.ts';
import type { Union } from '../union/union.ts';
import type { FromAnnouncer, FromWorker, ToAnnouncer } from './messages.ts';
import type { NotifierLink } from './notifier-link.ts';

export class AnnouncerLink {
  readonly #port: MessagePort;
  readonly #union: Union;
  readonly #voice: NotifierLink;

  constructor(
    { port, sign }: { port: MessagePort; sign: string },
    union: Union,
    voice: NotifierLink,
    send: (message: FromWorker) => void,
  ) {
    this.#port = port;
    this.#union = union;
    this.#voice = voice;
    let started = false;
    const { announcements } = union;
    announcements.stirs = () => {
      if (!started) {
        started = true;
        announcements.sign = sign;
        send({ kind: 'announce' });
      }
      this.#post('stir');
    };
  }

  /** The announcer is ready for more. */
  drain(): void {
    for (let got = receiveMessageOnPort(this.#port); got; got = receiveMessageOnPort(this.#port)) {
      const message = got.message as FromAnnouncer;
      if (message !== 'next') {
        this.#union.announcements.drop(message);
        continue;
      }
      // Who is not known would be taken for a guest.
      if (this.#union.announcements.announcer < 0) continue;
      const list = takeAnnouncements(this.#union);
      if (list.length > 0) this.#voice.whenTold(() => this.#post(list));
    }
  }

  #post(message: ToAnnouncer): void {
    this.#port.postMessage(message);
  }
}
