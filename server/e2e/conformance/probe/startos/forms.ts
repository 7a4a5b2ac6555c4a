import { sdk } from './sdk'

const { InputSpec, Value, List, Variants } = sdk

const inner = InputSpec.of({ host: Value.text({ name: 'Host', required: true, default: null }) })

/** A form with every kind of value. */
export const spec = InputSpec.of({
  text: Value.text({
    name: 'Text',
    required: true,
    default: 'd',
    minLength: 1,
    maxLength: 10,
    masked: false,
    placeholder: 'p',
    inputmode: 'text',
    patterns: [{ regex: '^[a-z]+$', description: 'lower case only' }],
    generate: { charset: 'a-z', len: 8 },
  }),
  area: Value.textarea({ name: 'Area', required: false, default: null }),
  number: Value.number({ name: 'Number', required: true, default: 2, integer: true, min: 1, max: 5, units: 'u' }),
  toggle: Value.toggle({ name: 'Toggle', default: true }),
  tri: Value.triState({ name: 'Three', default: null }),
  colour: Value.color({ name: 'Colour', required: false, default: null }),
  date: Value.datetime({ name: 'Date', required: false, default: null, inputmode: 'date' }),
  select: Value.select({ name: 'Select', default: 'a', values: { a: 'A', b: 'B' } }),
  multi: Value.multiselect({ name: 'Multi', default: ['a'], values: { a: 'A', b: 'B' }, minLength: 0, maxLength: 2 }),
  list: Value.list(List.text({ name: 'List', default: ['x'] }, { patterns: [] })),
  objects: Value.list(List.obj({ name: 'Objects', default: [] }, { spec: inner, displayAs: '{{host}}', uniqueBy: 'host' })),
  object: Value.object({ name: 'Object' }, inner),
  union: Value.union({ name: 'Union', default: 'off', variants: Variants.of({ off: { name: 'Off', spec: InputSpec.of({}) }, on: { name: 'On', spec: inner } }) }),
  hidden: Value.hidden(),
})

/** kinds: takes every kind of value, gives back every kind of result. */
export const forms = sdk.Action.withInput(
  'kinds',
  { name: 'Kinds', description: 'Every kind of value', warning: 'Careful', allowedStatuses: 'any', group: 'Forms', visibility: 'enabled' },
  spec,
  async () => ({ text: 'kept', number: 3 }),
  async ({ input }) => ({
    version: '1',
    title: 'Kinds',
    message: JSON.stringify(input),
    result: {
      type: 'group',
      value: [
        { type: 'single', name: 'One', description: 'first', value: 'v', copyable: true, qr: true, masked: true },
        { type: 'group', name: 'Inner', description: null, value: [{ type: 'single', name: 'Two', description: null, value: 'w', copyable: false, qr: false, masked: false }] },
      ],
    },
  }),
)

/** What fills the form in. */
export const filled = {
  text: 'abc',
  area: null,
  number: 4,
  toggle: false,
  tri: null,
  colour: '#ff0000',
  date: null,
  select: 'b',
  multi: ['a', 'b'],
  list: ['x', 'y'],
  objects: [{ host: 'h' }],
  object: { host: 'o' },
  union: { selection: 'on', value: { host: 'u' } },
  hidden: null,
}
