import { utils } from '@start9labs/start-sdk'
import { Field, Form } from './description'
import { sdk } from './sdk'

const { InputSpec, Value, List } = sdk

/** The SDK's form of ours. */
export const inputSpec = (form: Form) => InputSpec.of(Object.fromEntries(form.map(f => [f.id, field(f)])))

function field(f: Field) {
  const common = { name: f.name, description: f.description, warning: f.warning }
  const length = { minLength: f.minLength, maxLength: f.maxLength }
  switch (f.type) {
    case 'text':
      return Value.text({
        ...common, ...length, required: f.required, default: (f.default ?? f.generate ?? null) as string | null, placeholder: f.placeholder,
        patterns: f.patterns, masked: f.masked, inputmode: f.inputmode, generate: f.generate,
      })
    case 'textarea':
      return Value.textarea({ ...common, ...length, required: f.required, default: f.default as string | null, placeholder: f.placeholder, patterns: f.patterns })
    case 'number':
      return Value.number({
        ...common, required: f.required, default: f.default as number | null, placeholder: f.placeholder,
        min: f.min, max: f.max, integer: f.integer, step: f.step, units: f.units,
      })
    case 'toggle':
      return Value.toggle({ ...common, default: f.default === true })
    case 'select':
      return Value.select({ ...common, default: f.default as string, values: f.values })
    case 'multiselect':
      return Value.multiselect({ ...common, ...length, default: (f.default ?? []) as string[], values: f.values })
    case 'color':
      return Value.color({ ...common, required: f.required, default: f.default as string | null })
    case 'datetime':
      return Value.datetime({ ...common, required: f.required, default: f.default as string | null })
    case 'list':
      return Value.list(
        List.text({ ...common, ...length, default: (f.default ?? []) as string[] }, { patterns: f.patterns, placeholder: f.placeholder, masked: f.masked, inputmode: f.inputmode }),
      )
  }
}

/** What the fields of a form hold before anybody filled it in. */
export const defaults = (form: Form): Record<string, unknown> =>
  Object.fromEntries(
    form.map(f => {
      switch (f.type) {
        case 'toggle':
          return [f.id, f.default === true]
        case 'list':
        case 'multiselect':
          return [f.id, f.default ?? []]
        default:
          return [f.id, f.default ?? (f.generate && f.required ? utils.getDefaultString(f.generate) : null)]
      }
    }),
  )
