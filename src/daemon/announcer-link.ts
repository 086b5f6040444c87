// The serving worker's side of the announcer: what is to be told goes out when the announcer asks for it, and after
// the kernel has been told, so that who is woken by an event finds what it is about.
import { receiveMessageOnPort } from 'node:worker_threads';
import { takeAnnouncements } from '../union/announce.ts';
import type { Union } from '../union/union.ts';
import type { AnnouncerContact, FromAnnouncer, FromWorker, ToAnnouncer } from './messages.ts';
import type { NotifierLink } from './notifier-link.ts';

export class AnnouncerLink {
  readonly #union: Union;
  readonly #voice: NotifierLink;
  readonly #send: (message: FromWorker) => void;
  #contact: AnnouncerContact;
  #started = false;

  constructor(
    contact: AnnouncerContact,
    union: Union,
    voice: NotifierLink,
    send: (message: FromWorker) => void,
  ) {
    this.#contact = contact;
    this.#union = union;
    this.#voice = voice;
    this.#send = send;
    union.announcements.stirs = () => this.#stirs();
  }

  #stirs(): void {
    if (!this.#started) {
      this.#started = true;
      this.#union.announcements.sign = this.#contact.sign;
      this.#send({ kind: 'announce' });
    }
    this.#post('stir');
  }

  /** It has died; null: and there will be no other. What it was about to tell is for the next one. */
  replace(contact: AnnouncerContact | null): void {
    const { announcements } = this.#union;
    if (contact === null) {
      announcements.ended();
      return;
    }
    this.#contact = contact;
    this.#started = false;
    announcements.again();
  }

  /** The announcer is ready for more. */
  drain(): void {
    const { port } = this.#contact;
    for (let got = receiveMessageOnPort(port); got; got = receiveMessageOnPort(port)) {
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
    this.#contact.port.postMessage(message);
  }
}
