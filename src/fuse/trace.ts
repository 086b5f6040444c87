// --debug: one readable line per request and per reply, derived from the table in protocol.ts.
import { errnoName } from '../lib/errno.ts';
import { escapeName } from '../lib/names.ts';
import { readers, sizeOf } from './codec.ts';
import { HEADER, opcodeName, opcodeRow, opcodes, PAYLOAD, type StructName } from './protocol.ts';
import { type FuseRequest, forEachForget, readName, readSetxattr } from './request.ts';

const LONGEST_LINE = 400;

/** `-> 42 LOOKUP node=1 uid=0 gid=0 pid=77 "etc"` */
export function requestLine(r: FuseRequest, setxattrExt: boolean): string {
  const caller = `node=${r.nodeId} uid=${r.uid} gid=${r.gid} pid=${r.pid}`;
  return `-> ${uniqueOf(r.view)} ${opcodeName(r.opcode)} ${caller}${bodyOf(r, setxattrExt)}`.slice(
    0,
    LONGEST_LINE,
  );
}

/**
 * `<- 42 LOOKUP nodeid=2 …` or `<- 42 LOOKUP ENOENT`. `message` is that of the request, `reply` has the
 * payload at PAYLOAD, `result` its length or a negative errno.
 */
export function replyLine(opcode: number, message: DataView, reply: DataView, result: number): string {
  const head = `<- ${uniqueOf(message)} ${opcodeName(opcode)}`;
  if (result < 0) return `${head} ${errnoName(result)}`;
  const struct = opcodeRow(opcode)?.out;
  const size = struct === undefined ? 0 : sizeOf(struct);
  if (struct === undefined || size > result) return result === 0 ? `${head} ok` : `${head} ${result} bytes`;
  const more = result > size ? ` + ${result - size} bytes` : '';
  return `${head}${fieldsOf(struct, reply, PAYLOAD)}${more}`.slice(0, LONGEST_LINE);
}

function uniqueOf(message: DataView): string {
  return message.getBigUint64(8, true).toString();
}

function bodyOf(r: FuseRequest, setxattrExt: boolean): string {
  const row = opcodeRow(r.opcode);
  if (row === undefined) return ` ${r.length - HEADER} bytes`;
  if (r.opcode === opcodes.SETXATTR.code) {
    const { name, size, flags } = readSetxattr(r, setxattrExt);
    return ` "${escapeName(name)}" size=${size} flags=${flags}`;
  }
  let at = HEADER + (row.in === undefined ? 0 : sizeOf(row.in));
  let text = row.in === undefined || at > r.length ? '' : fieldsOf(row.in, r.view, HEADER);
  if (r.opcode === opcodes.BATCH_FORGET.code) {
    forEachForget(r, (nodeId, nlookup) => {
      text += ` ${nodeId}:${nlookup}`;
    });
    return text;
  }
  for (let i = 0; i < (row.names ?? 0); i++) {
    const name = readName(r, at);
    text += ` "${escapeName(name)}"`;
    at += name.length + 1;
  }
  const rest = r.length - r.extLength - at;
  return rest > 0 ? `${text} + ${rest} bytes` : text;
}

/** Modes in octal; zeros are left out, for most fields are not in use. */
function fieldsOf(struct: StructName, view: DataView, at: number): string {
  let text = '';
  const fields: Readonly<Record<string, number>> = readers[struct](view, at);
  for (const [name, value] of Object.entries(fields)) {
    if (value !== 0)
      text += ` ${name}=${name === 'mode' || name === 'umask' ? `0${value.toString(8)}` : value}`;
  }
  return text;
}
