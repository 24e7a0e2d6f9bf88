// Writes the JSON schema of each kind of zod's types, or, told texts for them on standard input, those that zod refuses.
import { readFileSync } from "node:fs";
import * as z from "zod";

const choice = z.enum(["a", "b"]);
const tree = z.object({ v: z.int(), get children() { return z.array(tree); } });
const kinds = {
  string: z.string(), number: z.number(), int: z.int(), int32: z.int32(), uint32: z.uint32(), float32: z.float32(),
  boolean: z.boolean(), null: z.null(), any: z.any(), unknown: z.unknown(), literal: z.literal("x"),
  literals: z.literal(["x", 1, true, null]), enum: choice, json: z.json(),
  email: z.email(), url: z.url(), uuid: z.uuid(), uuidv4: z.uuidv4(), uuidv6: z.uuidv6(), uuidv7: z.uuidv7(),
  guid: z.guid(), hostname: z.hostname(), emoji: z.emoji(), nanoid: z.nanoid(), cuid: z.cuid(), cuid2: z.cuid2(),
  ulid: z.ulid(), xid: z.xid(), ksuid: z.ksuid(), ipv4: z.ipv4(), ipv6: z.ipv6(), mac: z.mac(), cidrv4: z.cidrv4(),
  cidrv6: z.cidrv6(), base64: z.base64(), base64url: z.base64url(), e164: z.e164(), jwt: z.jwt(), hex: z.hex(),
  sha256: z.hash("sha256"), date: z.iso.date(), time: z.iso.time(), datetime: z.iso.datetime(),
  offset: z.iso.datetime({ offset: true }), local: z.iso.datetime({ local: true }), duration: z.iso.duration(),
  min: z.string().min(2), max: z.string().max(5), length: z.string().length(3), huge: z.string().max(2 ** 33),
  regex: z.string().regex(/^[a-z]+\d?$/), startsWith: z.string().startsWith("ab"), endsWith: z.string().endsWith("yz"),
  includes: z.string().includes("mid"), lowercase: z.string().lowercase(), uppercase: z.string().uppercase(),
  both: z.string().startsWith("a").endsWith("z"), template: z.templateLiteral(["v", z.int(), ".", choice]),
  gt: z.number().gt(5), gte: z.number().gte(5), lt: z.number().lt(5), lte: z.number().lte(5),
  positive: z.number().positive(), nonnegative: z.number().nonnegative(), multipleOf: z.number().multipleOf(5),
  step: z.int().step(86400), range: z.int().min(3).max(10),
  array: z.array(z.string()), bounded: z.array(z.int()).min(1).max(3), nonempty: z.array(z.int()).nonempty(),
  tuple: z.tuple([z.string(), z.int()]), rest: z.tuple([z.string()], z.int()),
  object: z.object({ a: z.string(), b: z.int().optional() }), strict: z.strictObject({ a: z.string() }),
  loose: z.looseObject({ a: z.string() }), catchall: z.object({ a: z.string() }).catchall(z.int()),
  partial: z.object({ a: z.string(), b: z.int() }).partial(), never: z.object({ a: z.never().optional(), b: z.int() }),
  record: z.record(z.string(), z.int()), recordEnum: z.record(choice, z.int()),
  partialRecord: z.partialRecord(choice, z.int()), recordRegex: z.record(z.string().regex(/^k\d$/), z.int()),
  recordMax: z.record(z.string().max(3), z.int()), recordUuid: z.record(z.uuid(), z.int()),
  recordUnion: z.record(z.union([z.literal("a"), z.literal("b")]), z.int()), recordNumber: z.record(z.number(), z.int()),
  union: z.union([z.string(), z.int()]), xor: z.xor([z.strictObject({ a: z.int() }), z.strictObject({ b: z.int() })]),
  tagged: z.discriminatedUnion("k", [
    z.object({ k: z.literal("a"), v: z.string() }), z.object({ k: z.literal("b"), w: z.int() }),
  ]),
  intersection: z.intersection(z.object({ a: z.string() }), z.object({ b: z.int() })),
  nullable: z.string().nullable(), nullish: z.object({ a: z.string().nullish() }),
  default: z.object({ a: z.string().default("x") }), prefault: z.object({ a: z.string().prefault("x") }),
  catch: z.object({ a: z.string().catch("x") }), readonly: z.object({ a: z.array(z.int()).readonly() }),
  meta: z.string().meta({ title: "t", id: "named" }), brand: z.string().brand(), lazy: tree, pipe: z.string().pipe(z.string()),
  stringbool: z.stringbool(), nonoptional: z.object({ a: z.nonoptional(z.string().optional()) }),
  keyof: z.keyof(z.object({ a: z.int(), b: z.int() })),
};

if (process.argv[2] === "--read") {
  const texts = JSON.parse(readFileSync(0, "utf8"));
  const refused = {};
  for (const [name, each] of Object.entries(texts)) {
    const kind = kinds[name.split(" ")[0]];
    const wrong = each.filter((text) => !kind.safeParse(JSON.parse(text)).success);
    if (wrong.length) refused[name] = wrong;
  }
  console.log(JSON.stringify(refused));
} else {
  const schemas = {};
  for (const [name, kind] of Object.entries(kinds)) {
    for (const target of ["draft-2020-12", "draft-7"]) {
      schemas[`${name} ${target}`] = z.toJSONSchema(kind, { target });
    }
  }
  console.log(JSON.stringify(schemas));
}
