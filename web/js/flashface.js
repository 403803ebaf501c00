// A colour for each socket of the pack, what a preset of FlashFace Guidance puts in place of its
// widgets, and what to do about an empty list of files. Nothing here changes what is sent or saved.

import { app } from "../../../scripts/app.js";

const COLOURS = {
    REFERENCE_NET: "#b39ddb",
    FACE_DETECTOR: "#80cbc4",
    FACE_IDENTITY: "#cddc39",
    FACE_CROP: "#bcaaa4",
    FACE_FEATURES: "#f48fb1",
    FACE_GUIDANCE: "#ce93d8",
    FACE2DIFFUSION: "#9fa8da",
    FACESTUDIO: "#a5d6a7",
    FACE_FUSION: "#81d4fa",
    FACE_FUSION_FEATURES: "#4fc3f7",
};

// Palettes of the user win; the frontend empties these with every change of the palette.
function colour() {
    const style = document.documentElement.style;
    for (const [type, value] of Object.entries(COLOURS)) {
        for (const place of [
            app.canvas?.default_connection_color_byType,
            window.LGraphCanvas?.link_type_colors,
        ])
            if (place && !place[type]) place[type] = value;
        const name = `--color-datatype-${type}`;
        if (!style.getPropertyValue(name)) style.setProperty(name, value);
    }
    app.canvas?.setDirty(true, true);
}

// What a widget is called in the user's language, before anything here renamed it.
const NAMES = new WeakMap();

function rename(widget, makeLabel) {
    if (!NAMES.has(widget)) NAMES.set(widget, widget.label);
    const name = NAMES.get(widget);
    widget.label = makeLabel?.(name ?? widget.name) ?? name;
}

// Widgets that a preset overrides are greyed out and carry its number beside their name.
function showPreset(node, presets) {
    const preset = node.widgets?.find((widget) => widget.name === "preset");
    if (!preset) return;
    const show = () => {
        const numbers = presets[preset.value] ?? {};
        for (const widget of node.widgets) {
            const names = Object.values(presets).some((values) => widget.name in values);
            if (!names) continue;
            const number = numbers[widget.name];
            widget.disabled = number !== undefined;
            rename(widget, number === undefined ? null : (name) => `${number} (preset) ${name}`);
        }
        node.setDirtyCanvas?.(true, true);
    };
    const before = preset.callback;
    preset.callback = function (...args) {
        const result = before?.apply(this, args);
        show();
        return result;
    };
    const configured = node.onConfigure;
    node.onConfigure = function (...args) {
        configured?.apply(this, args);
        show();
    };
    show();
}

// A list without files says what belongs there; `when_empty` comes from the node's schema.
function showEmpty(node) {
    for (const widget of node.widgets ?? []) {
        const inputs = node.constructor.nodeData?.input?.required ?? {};
        const advice = inputs[widget.name]?.[1]?.when_empty;
        if (!advice) continue;
        const values = widget.options?.values;
        const isEmpty = Array.isArray(values) && values.length === 1 && values[0] === "none";
        rename(widget, isEmpty ? () => advice : null);
    }
    node.setDirtyCanvas?.(true, true);
}

app.registerExtension({
    name: "flashface.canvas",
    setup() {
        colour();
        app.ui?.settings?.addEventListener?.("Comfy.ColorPalette.change", () =>
            setTimeout(colour, 0),
        );
    },
    afterConfigureGraph: colour,
    refreshComboInNodes() {
        // The lists are filled after this is called.
        setTimeout(() => app.graph?.nodes?.forEach(showEmpty), 0);
    },
    nodeCreated(node) {
        showEmpty(node);
        const presets = node.constructor.nodeData?.input?.required?.preset?.[1]?.presets;
        if (presets) showPreset(node, presets);
    },
});
