//! Parameter counts against what is published, and specifications that must be refused.

use super::*;
use lehr_ir::Graph;

fn counted(spec: &str) -> Net {
    Spec::parse(spec).unwrap().build_with(Weights::Zeros).unwrap_or_else(|d| panic!("{d}"))
}

fn small(spec: &str, seed: u64) -> Graph {
    Spec::parse(&format!("{spec},seed={seed}")).unwrap().build().unwrap_or_else(|d| panic!("{d}")).finish()
}

fn complaint(spec: &str) -> String {
    Spec::parse(spec).and_then(|s| s.build_with(Weights::Zeros)).unwrap_err().to_string()
}

#[test]
fn parameters_are_as_many_as_published() {
    // torchvision's models count what they train, and so does this; timm's seresnet50 is senet.
    let published = [
        ("lenet5", 61_706),
        ("alexnet?form=single,input=224", 61_100_840),
        // bvlc_alexnet's.
        ("alexnet", 60_965_224),
        ("vgg11", 132_863_336),
        ("vgg13", 133_047_848),
        ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
        ("blurpool", 132_863_336),
        // bvlc_googlenet's without its heads, and torchvision's.
        ("inception_v1", 6_998_552),
        ("inception_v1?form=torchvision", 6_624_904),
        ("resnet18", 11_689_512),
        ("resnet50", 25_557_032),
        ("senet", 28_088_024),
        ("densenet121", 7_978_856),
        ("squeezenet", 1_235_496),
        ("squeezenet?version=1.0", 1_248_424),
        ("mobilenet", 4_231_976),
    ];
    for (spec, parameters) in published {
        assert_eq!(counted(spec).parameters(), parameters, "{spec}");
    }
    // Hand-counted: 64*2 + 64 + 1; and 2*256 + 256, three times 256*256 + 256, 3*256 + 3.
    assert_eq!(counted("mlp").parameters(), 193);
    assert_eq!(counted("siren").parameters(), 768 + 3 * 65_792 + 771);
}

#[test]
fn every_name_builds_with_its_defaults_and_says_where_it_is_from() {
    for network in NETWORKS {
        let net = counted(network.name);
        assert!(net.parameters() > 0, "{}", network.name);
        let graph = net.finish();
        assert_eq!(graph.name, network.name);
        assert_eq!(lehr_ir::verify(&graph), [], "{}", network.name);
        assert!(network.source.contains("(19") || network.source.contains("(20"), "{}", network.name);
    }
}

#[test]
fn the_same_specification_gives_the_same_weights() {
    for spec in
        ["lenet5?width=1", "hnet?width=0.25", "resnet18?width=0.125,input=32", "mlp?units=3", "siren?features=8"]
    {
        assert_eq!(small(spec, 1), small(spec, 1));
        assert_ne!(small(spec, 1), small(spec, 2), "{spec}");
    }
}

#[test]
fn sizes_are_those_of_the_papers() {
    let types = |spec: &str| {
        let g = counted(spec).finish();
        (g.ty(g.inputs()[0]).to_string(), g.ty(g.outputs[0].value).to_string())
    };
    let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
    assert_eq!(types("lenet5"), pair("f32[batch,1,28,28]", "f32[batch,10]"));
    assert_eq!(types("alexnet"), pair("f32[batch,3,227,227]", "f32[batch,1000]"));
    assert_eq!(types("siren?outputs=1"), pair("f32[batch,2]", "f32[batch,1]"));
    assert_eq!(types("resnet50?classes=10&input=64&width=0.5"), pair("f32[batch,3,64,64]", "f32[batch,10]"));
    // The blurred form halves as the plain one does.
    assert_eq!(types("vgg11?pool=blur,input=64"), types("vgg11?input=64"));
    assert_eq!(counted("resnet18?pool=blur").parameters(), counted("resnet18").parameters());
}

#[test]
fn wrong_specifications_say_what_would_do() {
    let cases: &[(&str, &[&str])] = &[
        ("lenet9", &["zoo:lenet9", "lenet5", "hnet"]),
        ("resnet50?size=3", &["resnet50 has no setting size", "input=224, classes=1000, width=1", "weights=FILE"]),
        ("resnet50?classes", &["'classes' must look like SETTING=VALUE"]),
        ("resnet50?classes=0", &["classes=0: it must be a whole number from 1 to 1048576"]),
        ("resnet50?classes=99999999999999999999999", &["whole number from 1"]),
        ("resnet50?width=nan", &["width=nan", "a number from 0.015625 to 16"]),
        ("resnet50?width=-1", &["width=-1"]),
        ("alexnet?form=two", &["form=two: it must be one of two-groups, single"]),
        ("alexnet?seed=-1", &["seed=-1"]),
        ("alexnet?input=16", &["zoo:alexnet?input=16", "features.", "input=227"]),
        ("vgg11?input=2048", &["2^30 parameters", "classifier.0.weight"]),
        ("blurpool?input=32", &["features.20"]),
        ("hnet?input=30", &["multiple of 4"]),
        ("mlp?fit=abs,inputs=2", &["one number"]),
        ("mlp?fit=abs,units=5000", &["1 to 1024"]),
        ("vgg11?weights=none.npz", &["none.npz"]),
        ("vgg11?weights=none.txt", &["none.txt: weights come from a .safetensors or .npz file"]),
    ];
    for (spec, words) in cases {
        let said = match spec.contains("weights=") {
            true => Spec::parse(spec).unwrap().build().unwrap_err().to_string(),
            false => complaint(spec),
        };
        for word in *words {
            assert!(said.contains(word), "{spec} gives:\n{said}\nwhich lacks '{word}'");
        }
    }
}
