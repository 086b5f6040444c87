// Readers and writers of the structs in protocol.ts, compiled once from their layouts. A reader gives the same
// object each time, one per struct, whose fields are getters that look into the message: take what you need
// before the next read of that struct. That costs some nanoseconds per field that is looked at, a third of
// filling in all of them. 64-bit values are numbers (exact up to 2^53; what is opaque comes in halves), never
// BigInt, which is slow.
import { type FieldType, type Layout, type StructName, type StructOf, structs } from './protocol.ts';

const WORD = 2 ** 32;
const sizes: Readonly<Record<FieldType, number>> = { u16: 2, u32: 4, i32: 4, u64: 8, i64: 8 };

export function getU64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * WORD + view.getUint32(at, true);
}

/** Of a non-negative value below 2^64. */
export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value, true);
  view.setUint32(at + 4, value / WORD, true);
}

export function getI64(view: DataView, at: number): number {
  return view.getInt32(at + 4, true) * WORD + view.getUint32(at, true);
}

/** Clamped to what fits: the largest offset reads as 2^63 and has to go back as 2^63 - 1. */
export function putI64(view: DataView, at: number, value: number): void {
  if (value >= 2 ** 63) {
    view.setUint32(at, 0xffffffff, true);
    view.setUint32(at + 4, 0x7fffffff, true);
  } else {
    view.setUint32(at, value, true);
    view.setInt32(at + 4, Math.floor(Math.max(value, -(2 ** 63)) / WORD), true);
  }
}

interface Field {
  name: string;
  type: FieldType;
  offset: number;
}

/** Offsets by natural alignment: fuse.h pads every struct by hand, and a table that does not is wrong. */
function fieldsOf(struct: string, layout: Layout): { fields: Field[]; size: number } {
  const fields: Field[] = [];
  let size = 0;
  for (const [name, type] of Object.entries(layout)) {
    if (typeof type === 'number') {
      size += type;
      continue;
    }
    if (size % sizes[type] !== 0) throw new Error(`${struct}.${name} is not aligned at ${size}`);
    fields.push({ name, type, offset: size });
    size += sizes[type];
  }
  return { fields, size };
}

type Put = (view: DataView, at: number, value: number) => void;

const puts: Readonly<Record<FieldType, Put>> = {
  u16: (view, at, value) => view.setUint16(at, value, true),
  u32: (view, at, value) => view.setUint32(at, value, true),
  i32: (view, at, value) => view.setInt32(at, value, true),
  u64: putU64,
  i64: putI64,
};

type Read = (view: DataView, at: number) => Record<string, number>;
type Write = (view: DataView, at: number, value: Readonly<Record<string, number>>) => number;

function readerOf(fields: readonly Field[]): Read {
  let view: DataView = new DataView(new ArrayBuffer(0));
  let at = 0;
  const getters: Readonly<Record<FieldType, (offset: number) => () => number>> = {
    u16: (offset) => () => view.getUint16(at + offset, true),
    u32: (offset) => () => view.getUint32(at + offset, true),
    i32: (offset) => () => view.getInt32(at + offset, true),
    u64: (offset) => () => getU64(view, at + offset),
    i64: (offset) => () => getI64(view, at + offset),
  };
  const struct = {};
  for (const { name, type, offset } of fields) {
    Object.defineProperty(struct, name, { get: getters[type](offset), enumerable: true });
  }
  return (newView, newAt) => {
    view = newView;
    at = newAt;
    return struct;
  };
}

/** Padding is zeroed: a reply buffer still holds the last reply. */
function writerOf(fields: readonly Field[], size: number): Write {
  const words = Math.floor(size / 4);
  return (view, at, value) => {
    for (let i = 0; i < words; i++) view.setUint32(at + 4 * i, 0, true);
    for (const { name, type, offset } of fields) puts[type](view, at + offset, value[name] as number);
    return size;
  };
}

export type Readers = { readonly [N in StructName]: (view: DataView, at: number) => Readonly<StructOf<N>> };
export type Writers = {
  readonly [N in StructName]: (view: DataView, at: number, value: Readonly<StructOf<N>>) => number;
};

const compiled = Object.entries(structs).map(([name, layout]) => ({ name, ...fieldsOf(name, layout) }));

/** The struct at `at`, as that struct's one object; a spread makes a copy of it. */
export const readers = Object.fromEntries(
  compiled.map(({ name, fields }) => [name, readerOf(fields)]),
) as unknown as Readers;

/** Writes the struct at `at`; gives its size. */
export const writers = Object.fromEntries(
  compiled.map(({ name, fields, size }) => [name, writerOf(fields, size)]),
) as unknown as Writers;

const sizeByName: ReadonlyMap<string, number> = new Map(compiled.map(({ name, size }) => [name, size]));

/** sizeof, in bytes. */
export function sizeOf(name: StructName): number {
  return sizeByName.get(name) as number;
}

/** Where a field lies in its struct. */
export function offsetOf<N extends StructName>(name: N, field: keyof StructOf<N> & string): number {
  const found = compiled.find((one) => one.name === name)?.fields.find((one) => one.name === field);
  if (found === undefined) throw new Error(`${name} has no field ${field}`);
  return found.offset;
}
