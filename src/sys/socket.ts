// A pair of connected sockets, and the descriptor that comes through one (fusermount3 hands over the device
// in this way).
import { E } from '../lib/errno.ts';
import { native, pinned } from './ffi.ts';

const cSocketpair = native('socketpair', 'int', ['int', 'int', 'int', 'uintptr_t']);
const cRecvmsg = native('recvmsg', 'int', ['int', 'uintptr_t', 'int']);

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CMSG_CLOEXEC = 0x40000000;

const pair = pinned(8);

/** Two connected stream sockets, close-on-exec; or a negative errno. */
export function socketpair(): [number, number] | number {
  const error = cSocketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.address);
  return error < 0 ? error : [pair.u32[0] as number, pair.u32[1] as number];
}

/** struct msghdr (56 bytes), its struct iovec (16), one byte of data, and room for one control message. */
const message = pinned(56 + 16 + 8 + 24);
const IOV = 56;
const DATA = 72;
const CONTROL = 80;
/** struct cmsghdr (16) and a descriptor, padded. */
const CONTROL_SIZE = 24;

/**
 * Waits for a message with a descriptor. ECONNRESET: the other side has ended without sending one; ENOMSG: a
 * message came that has none.
 */
export function recvFd(sock: number): number {
  const view = message.view;
  message.bytes.fill(0);
  putAddress(view, 16, message.address + IOV);
  view.setUint32(24, 1, true);
  putAddress(view, IOV, message.address + DATA);
  view.setUint32(IOV + 8, 1, true);
  putAddress(view, 32, message.address + CONTROL);
  view.setUint32(40, CONTROL_SIZE, true);
  const length = cRecvmsg(sock, message.address, MSG_CMSG_CLOEXEC);
  if (length < 0) return length;
  if (length === 0) return -E.ECONNRESET;
  const isRights =
    view.getUint32(40, true) >= 20 &&
    view.getUint32(CONTROL + 8, true) === SOL_SOCKET &&
    view.getUint32(CONTROL + 12, true) === SCM_RIGHTS;
  return isRights ? view.getInt32(CONTROL + 16, true) : -E.ENOMSG;
}

function putAddress(view: DataView, at: number, address: number): void {
  view.setBigUint64(at, BigInt(address), true);
}
